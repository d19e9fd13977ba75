"""Test the daemon's checks: a healthy one passes all in order, and each fault is reported."""

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
from distconv_client.doctor.service import Service


def test_a_healthy_site_passes_every_check_in_order(doctor_config: DoctorConfig) -> None:
    results = list(run_checks(doctor_config))
    assert tuple(one.check for one in results) == CHECKS
    assert {one.check for one in results if one.outcome != "ok"} == {"tls"}
    assert results[5].detail == "no key is needed; roles: read, submit, engine, admin"
    assert results[-1].detail.startswith("attic encoded 25 frames to h264 in ")


def test_a_server_that_is_not_a_distconvd_is_reported(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="<html>It works!</html>")
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("http", "GET /livez returned 200, but not distconvd's reply")


def test_a_server_that_does_not_speak_http_is_reported(doctor_config: DoctorConfig) -> None:
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


def test_a_reply_without_a_date_skips_the_clock(doctor_config: DoctorConfig, site: Site) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="OK")
    assert outcomes(doctor_config)["clock"] == "skip"


ROLES = ("GET /version", "POST /jobs/", "POST /jobs/0_0/progress", "DELETE /engines/")


@pytest.mark.parametrize(
    "key,status,said",
    [
        (None, 401, "the daemon requires a key, but none was given"),
        ("wrong", 401, "the daemon does not accept this key"),
        ("poor", 403, "this key has no role"),
    ],
)
def test_a_key_without_any_role_is_reported(
    doctor_config: DoctorConfig, site: Site, key: str | None, status: int, said: str
) -> None:
    doctor_config.settings = Settings(doctor_config.settings.server, key)
    site.replies |= {path: problem(status, "no") for path in ROLES}
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("key", said)


def test_an_engines_key_passes_and_checks_of_other_roles_are_skipped(
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
    assert (one.check, one.detail[:25]) == ("version", "the daemon is 7.2.0, but ")


def test_a_daemon_that_is_not_ready_is_reported_with_its_causes(
    doctor_config: DoctorConfig, site: Site
) -> None:
    body = {"ready": False, "causes": {"store": "no space left"}}
    site.replies["GET /readyz"] = httpx.Response(503, json=body)
    one = failed(doctor_config)
    assert (one.check, one.detail) == ("ready", "the daemon accepts no jobs: store: no space left")
    assert outcomes(doctor_config)["round trip"] == "skip"


def test_what_a_ready_daemon_warns_of_is_shown(doctor_config: DoctorConfig, site: Site) -> None:
    site.replies["GET /readyz"] = found({"ready": True, "warnings": {"store": "it was damaged"}})
    assert Finding("ready", "ok", "the daemon accepts jobs; store: it was damaged") in run_checks(
        doctor_config
    )


@pytest.mark.parametrize(
    "engines,said",
    [
        ([], "no engine has registered"),
        ([ENGINE | {"status": "offline"}], "0 of 1 available: attic is offline"),
        ([ENGINE | {"benchmark_time": None}], "0 of 1 available: attic is idle"),
        ([ENGINE | {"status": "quarantined", "engine_id": "\x1b"}], "0 of 1 available: \\x1b is"),
    ],
)
def test_a_farm_without_an_available_engine_is_reported(
    doctor_config: DoctorConfig, site: Site, engines: list[dict[str, Any]], said: str
) -> None:
    site.engines = engines
    one = failed(doctor_config)
    assert one.check == "engines"
    assert one.detail.startswith(said)


def test_a_server_that_trickles_its_reply_times_out(
    doctor_config: DoctorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    def trickle(request: httpx.Request) -> httpx.Response:
        hang.wait(30)
        return httpx.Response(200)

    doctor_config.transport = httpx.MockTransport(trickle)
    monkeypatch.setattr("distconv_client.doctor.run.SERVICE_S", 0.05)
    assert failed(doctor_config).detail.endswith("no answer within 0.05 s")
    hang.set()


def test_a_daemon_that_dies_between_checks_is_reported(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.replies["GET /readyz"] = httpx.Response(503, text="<html>")
    assert failed(doctor_config).detail.startswith("the daemon's replies became invalid: ")


@pytest.mark.parametrize("status,warns", [(400, True), (403, False), (404, False)])
def test_a_key_that_may_speak_for_any_engine_is_warned_of(status: int, warns: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/ws"):
            return httpx.Response(status)
        return httpx.Response(404 if request.url.path.endswith("/progress") else 403)

    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport, base_url="http://d") as http:
        finding = Service(http).check_key(has_key=True)
    assert finding.outcome == "ok"
    assert finding.detail.startswith("roles: engine")
    assert ("keys add --role engine --engine" in finding.detail) == warns
