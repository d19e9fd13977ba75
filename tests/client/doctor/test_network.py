"""Test the network checks: name, port and TLS each report their fault, within a time limit."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest
import trustme
from tests.client.doctor.kit import CHECKS, outcomes

from distconv_client.config import Settings
from distconv_client.doctor import DoctorConfig, Finding, finding, run_checks
from distconv_client.doctor.network import Network, Target, check_name, check_port, check_tls


def target(url: str) -> Target:
    return Target(httpx.URL(url))


def test_a_name_without_an_address_is_reported() -> None:
    def resolve(*args: Any, **more: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    result = check_name(target("http://nowhere.invalid"), Network(resolve=resolve))
    assert (result.outcome, result.detail) == (
        "fail", "nowhere.invalid cannot be resolved: Name or service not known",
    )  # fmt: skip
    assert "/etc/hosts" in result.remedy


def test_a_name_server_that_does_not_answer_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distconv_client.doctor.network.CHECK_S", 0.05)
    hang = threading.Event()
    network = Network(resolve=lambda *a, **k: [hang.wait(30)])
    result = check_name(target("http://slow.invalid"), network)
    hang.set()
    assert (result.outcome, result.detail) == ("fail", "slow.invalid: no answer within 0.05 s")


def test_an_invalid_host_name_is_reported() -> None:
    result = check_name(target("http://" + "a" * 70 + ".invalid"), Network())
    assert result.outcome == "fail"


def test_a_port_without_a_listener_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    result, here = check_port(target(f"http://127.0.0.1:{closed}"), Network())
    assert (result.detail, here) == (f"nothing listens at 127.0.0.1:{closed}", None)
    assert "Start distconvd" in result.remedy


@pytest.mark.parametrize(
    "error,said",
    [
        (TimeoutError(), "does not answer within 10 s"),
        (OSError(113, "No route to host"), "cannot be reached: No route to host"),
    ],
)
def test_a_blocked_network_is_reported(error: OSError, said: str) -> None:
    def connect(*args: Any, **more: Any) -> socket.socket:
        raise error

    result, _ = check_port(target("http://10.0.0.1"), Network(connect=connect))
    assert result.outcome == "fail"
    assert said in result.detail
    assert result.remedy


def test_after_a_failed_check_dependent_ones_are_skipped_but_this_machine_is_checked(
    doctor_config: DoctorConfig,
) -> None:
    def refuse(*args: Any, **more: Any) -> socket.socket:
        raise ConnectionRefusedError

    doctor_config.network_calls = Network(connect=refuse)
    results = {one.check: one for one in run_checks(doctor_config)}
    assert tuple(results) == CHECKS
    fine = [check for check, one in results.items() if one.outcome == "ok"]
    assert fine == ["name", "ffmpeg", "disk"]
    assert results["round trip"].detail == "needs the check port, which failed"


def test_behind_a_proxy_the_network_checks_are_skipped(doctor_config: DoctorConfig) -> None:
    doctor_config.settings = Settings("http://dispatch.invalid", None)
    doctor_config.network_calls = Network(
        proxies=lambda: {"http": "http://proxy.invalid:3128"}, is_bypassed=lambda host: False
    )
    first = next(iter(run_checks(doctor_config)))
    assert first == Finding("name", "skip", "requests go through the proxy proxy.invalid")


def test_a_call_without_a_timeout_gets_one() -> None:
    assert finding.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        finding.within(5, lambda: 1 // 0)
    hang = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        finding.within(0.01, lambda: hang.wait(30))
    hang.set()


# ------------------------------------------------------------------------------------------- TLS


class Authority(NamedTuple):
    """An authority, and the TLS contexts of servers and clients."""

    ca: trustme.CA

    def server(self, name: str, not_after: datetime | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name, not_after=not_after).configure_cert(context)
        return context

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(trustme.CA())


@contextmanager
def speaking_tls(context: ssl.SSLContext | None) -> Iterator[Target]:
    """Serve one handshake; without a context, answer as plain HTTP does."""

    def serve() -> None:
        plain, _ = server.accept()
        with plain:
            if context is None:
                plain.recv(1000)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                pass  # the client rejected the certificate

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield target(f"https://localhost:{server.getsockname()[1]}")
        thread.join(20)


def tls_finding(server: ssl.SSLContext | None, client: ssl.SSLContext) -> Finding:
    with speaking_tls(server) as where:
        return check_tls(where, Network(tls=lambda: client))[0]


def test_a_valid_certificate_passes(authority: Authority) -> None:
    later = datetime.now(UTC) + timedelta(days=90.5)
    server = authority.server("localhost", later)
    result = tls_finding(server, authority.trusting())
    assert result == Finding("tls", "ok", "the certificate expires in 90 days")


@pytest.mark.parametrize(
    "name,days,trusted,said,remedy",
    [
        ("localhost", 90, False, "certificate", "SSL_CERT_FILE"),
        ("elsewhere", 90, True, "Hostname mismatch", "name of the certificate"),
        ("localhost", -1, True, "expired", "Renew"),
        ("localhost", 3, True, "expires in 3 days", "Renew"),
    ],
)
def test_an_invalid_certificate_is_reported_with_a_remedy(
    authority: Authority, name: str, days: int, trusted: bool, said: str, remedy: str
) -> None:
    server = authority.server(name, datetime.now(UTC) + timedelta(days=days, hours=1))
    client = authority.trusting() if trusted else ssl.create_default_context()
    result = tls_finding(server, client)
    assert result.outcome == "fail"
    assert said in result.detail
    assert remedy in result.remedy


def test_a_port_without_tls_is_reported(authority: Authority) -> None:
    result = tls_finding(None, authority.trusting())
    assert result.outcome == "fail"
    assert "write http://" in result.remedy


def test_a_certificate_that_expires_soon_does_not_block_later_checks(
    doctor_config: DoctorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Finding("tls", "fail", "the certificate expires in 3 days", "Renew it.")
    monkeypatch.setattr("distconv_client.doctor.network.check_tls", lambda *a: (soon, True))
    assert outcomes(doctor_config)["round trip"] == "ok"
