"""The daemon: a healthy one passes every check in order, and each of its faults is told."""

import threading
import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from tests.client.doctor.kit import CHECKS, ENGINE, Site, failed, outcomes
from tests.client.fake import found, problem

from distconv_client.config import Settings
from distconv_client.doctor import DoctorConfig, Finding, run_checks


def test_a_healthy_site_passes_every_check_in_order(doctor_config: DoctorConfig) -> None:
    results = list(run_checks(doctor_config))
    assert tuple(one.check for one in results) == CHECKS
    assert {one.check for one in results if one.outcome != "ok"} == {"tls"}
    assert results[5].detail == "none is needed; roles: read, submit, engine, admin"
    assert results[-1].detail.startswith("attic made 25 frames of h264 in ")


def test_a_server_that_is_not_a_distconvd_is_reported(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="<html>It works!</html>")
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("http", "/livez is answered with 200, not as distconvd does")


def test_a_server_that_speaks_no_http_is_reported(doctor_config: DoctorConfig) -> None:
    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("illegal status line")

    doctor_config.transport = httpx.MockTransport(hang_up)
    one = failed(doctor_config)
    assert (one.check, "https://" in one.remedy) == ("http", True)


@pytest.mark.parametrize("ahead_s,word", [(-95, "ahead of"), (95, "behind")])
def test_clocks_that_differ_are_reported_with_their_direction(
    doctor_config: DoctorConfig, site: Site, ahead_s: int, word: str
) -> None:
    date = formatdate(time.time() + ahead_s, usegmt=True)
    site.replies["GET /livez"] = httpx.Response(200, text="OK", headers={"Date": date})
    one = failed(doctor_config)
    assert one.check == "clock"
    assert f"this machine is {word} the daemon" in one.detail
    assert outcomes(doctor_config)["round trip"] == "ok"


def test_a_reply_without_a_date_reports_nothing_of_the_clock(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="OK")
    assert outcomes(doctor_config)["clock"] == "skip"


ROLES = ("GET /version", "POST /jobs/", "POST /jobs/0_0/progress", "DELETE /engines/")


@pytest.mark.parametrize(
    "key,status,said",
    [
        (None, 401, "the daemon asks for a key, and none is given"),
        ("wrong", 401, "the daemon does not know this key"),
        ("poor", 403, "this key may do nothing"),
    ],
)
def test_a_key_that_opens_nothing_is_reported(
    doctor_config: DoctorConfig, site: Site, key: str | None, status: int, said: str
) -> None:
    doctor_config.settings = Settings(doctor_config.settings.server, key)
    site.replies |= {path: problem(status, "no") for path in ROLES}
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("key", said)


def test_an_engines_key_is_fine_and_the_rest_is_skipped_with_the_reason(
    doctor_config: DoctorConfig, site: Site
) -> None:
    doctor_config.settings = Settings(doctor_config.settings.server, "engine-key")
    site.replies |= {path: problem(403, "no") for path in ROLES if "progress" not in path}
    results = {one.check: one for one in run_checks(doctor_config)}
    assert results["key"] == Finding("key", "ok", "roles: engine")
    skipped = [check for check, one in results.items() if one.outcome == "skip"]
    assert skipped == ["tls", "version", "engines", "round trip"]


def test_a_daemon_of_another_version_is_reported(doctor_config: DoctorConfig, site: Site) -> None:
    site.replies["GET /version"] = found({"version": "7.2.0"})
    one = failed(doctor_config)
    assert (one.check, one.detail[:26]) == ("version", "the daemon is 7.2.0, this ")


def test_a_daemon_that_is_not_ready_is_reported_with_its_causes(
    doctor_config: DoctorConfig, site: Site
) -> None:
    body = {"ready": False, "causes": {"store": "no space left"}}
    site.replies["GET /readyz"] = httpx.Response(503, json=body)
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("ready", "it accepts none: store: no space left")
    assert outcomes(doctor_config)["round trip"] == "skip"


@pytest.mark.parametrize(
    "engines,said",
    [
        ([], "none has registered"),
        ([ENGINE | {"status": "offline"}], "none of 1 can work: attic is offline"),
        ([ENGINE | {"benchmark_time": None}], "none of 1 can work: attic is idle"),
        ([ENGINE | {"status": "quarantined", "engine_id": "\x1b"}], "none of 1 can work: \\x1b is"),
    ],
)
def test_a_farm_without_an_engine_that_works_is_reported(
    doctor_config: DoctorConfig, site: Site, engines: list[dict[str, Any]], said: str
) -> None:
    site.engines = engines
    one = failed(doctor_config)
    assert one.check == "engines"
    assert one.detail.startswith(said)


def test_a_server_that_dribbles_is_not_waited_for(
    doctor_config: DoctorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    def dribble(request: httpx.Request) -> httpx.Response:
        hang.wait(30)
        return httpx.Response(200)

    doctor_config.transport = httpx.MockTransport(dribble)
    monkeypatch.setattr("distconv_client.doctor.run.SERVICE_S", 0.05)
    assert failed(doctor_config).detail.endswith("no answer within 0.05 s")
    hang.set()


def test_a_daemon_that_dies_in_the_middle_is_reported(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.replies["GET /readyz"] = httpx.Response(503, text="<html>")
    assert failed(doctor_config).detail.startswith("the daemon stopped answering as one: ")
