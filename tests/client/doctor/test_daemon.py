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
from distconv_client.doctor import Finding, Patient, examine


def test_a_healthy_site_passes_every_check_in_order(patient: Patient) -> None:
    results = list(examine(patient))
    assert tuple(one.check for one in results) == CHECKS
    assert {one.check for one in results if one.outcome != "ok"} == {"tls"}
    assert results[5].told == "none is needed; roles: read, submit, engine, admin"
    assert results[-1].told.startswith("attic made 25 frames of h264 in ")


def test_a_server_that_is_no_distconvd_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="<html>It works!</html>")
    one = failed(patient)
    assert (one.check, one.told) == ("http", "/livez is answered with 200, not as distconvd does")


def test_a_server_that_speaks_no_http_is_told(patient: Patient) -> None:
    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("illegal status line")

    patient.transport = httpx.MockTransport(hang_up)
    one = failed(patient)
    assert (one.check, "https://" in one.remedy) == ("http", True)


@pytest.mark.parametrize("ahead_s,word", [(-95, "ahead of"), (95, "behind")])
def test_clocks_that_differ_are_told_with_their_direction(
    patient: Patient, site: Site, ahead_s: int, word: str
) -> None:
    date = formatdate(time.time() + ahead_s, usegmt=True)
    site.replies["GET /livez"] = httpx.Response(200, text="OK", headers={"Date": date})
    one = failed(patient)
    assert one.check == "clock"
    assert f"this machine is {word} the daemon" in one.told
    assert outcomes(patient)["round trip"] == "ok"


def test_a_reply_without_a_date_tells_nothing_of_the_clock(patient: Patient, site: Site) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="OK")
    assert outcomes(patient)["clock"] == "skip"


ROLES = ("GET /version", "POST /jobs/", "POST /jobs/0_0/progress", "DELETE /engines/")


@pytest.mark.parametrize(
    "key,status,said",
    [
        (None, 401, "the daemon asks for a key, and none is given"),
        ("wrong", 401, "the daemon does not know this key"),
        ("poor", 403, "this key may do nothing"),
    ],
)
def test_a_key_that_opens_nothing_is_told(
    patient: Patient, site: Site, key: str | None, status: int, said: str
) -> None:
    patient.settings = Settings(patient.settings.server, key)
    site.replies |= {path: problem(status, "no") for path in ROLES}
    one = failed(patient)
    assert (one.check, one.told) == ("key", said)


def test_an_engines_key_is_fine_and_the_rest_is_skipped_with_the_reason(
    patient: Patient, site: Site
) -> None:
    patient.settings = Settings(patient.settings.server, "engine-key")
    site.replies |= {path: problem(403, "no") for path in ROLES if "progress" not in path}
    results = {one.check: one for one in examine(patient)}
    assert results["key"] == Finding("key", "ok", "roles: engine")
    skipped = [check for check, one in results.items() if one.outcome == "skip"]
    assert skipped == ["tls", "version", "engines", "round trip"]


def test_a_daemon_of_another_version_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /version"] = found({"version": "7.2.0"})
    one = failed(patient)
    assert (one.check, one.told[:26]) == ("version", "the daemon is 7.2.0, this ")


def test_a_daemon_that_is_not_ready_is_told_with_its_causes(patient: Patient, site: Site) -> None:
    body = {"ready": False, "causes": {"store": "no space left"}}
    site.replies["GET /readyz"] = httpx.Response(503, json=body)
    one = failed(patient)
    assert (one.check, one.told) == ("ready", "it accepts none: store: no space left")
    assert outcomes(patient)["round trip"] == "skip"


@pytest.mark.parametrize(
    "engines,said",
    [
        ([], "none has registered"),
        ([ENGINE | {"status": "offline"}], "none of 1 can work: attic is offline"),
        ([ENGINE | {"benchmark_time": None}], "none of 1 can work: attic is idle"),
        ([ENGINE | {"status": "quarantined", "engine_id": "\x1b"}], "none of 1 can work: \\x1b is"),
    ],
)
def test_a_farm_without_an_engine_that_works_is_told(
    patient: Patient, site: Site, engines: list[dict[str, Any]], said: str
) -> None:
    site.engines = engines
    one = failed(patient)
    assert one.check == "engines"
    assert one.told.startswith(said)


def test_a_server_that_dribbles_is_not_waited_for(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    def dribble(request: httpx.Request) -> httpx.Response:
        hang.wait(30)
        return httpx.Response(200)

    patient.transport = httpx.MockTransport(dribble)
    monkeypatch.setattr("distconv_client.doctor.run.SERVICE_S", 0.05)
    assert failed(patient).told.endswith("no answer within 0.05 s")
    hang.set()


def test_a_daemon_that_dies_in_the_middle_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /readyz"] = httpx.Response(503, text="<html>")
    assert failed(patient).told.startswith("the daemon stopped answering as one: ")
