"""Run all checks in order; skip those that depend on a failed one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from distconv_client.api import LOOPBACK_HOSTS, Client
from distconv_client.certificates import plain_reason, verification
from distconv_client.config import Settings
from distconv_client.doctor import machine, network
from distconv_client.doctor.finding import CHECK_S, Finding, fail, skip, within
from distconv_client.doctor.machine import EngineReport
from distconv_client.doctor.roundtrip import NAME as ROUND_TRIP
from distconv_client.doctor.roundtrip import RoundTrip
from distconv_client.doctor.service import Service
from distconv_client.errors import ClientError
from distconv_client.key import key_headers
from distconv_client.views import EngineView

SERVICE_S = 5 * CHECK_S
"""An HTTP check makes a few requests, each with a timeout; this also bounds a trickling reply."""
_NO_DAEMON = (httpx.HTTPError, ValueError, AttributeError, msgspec.DecodeError)
"""The errors caused by replies that no daemon would send."""


@dataclass
class DoctorConfig:
    """What to check, and how; tests replace the callables.

    Args:
        settings: the daemon's address and the key.
        clip_dir: a folder shared with the engines, for the round trip.
        timeout_s: how long the round trip may take.
        work_dir: the work directory of an engine on this machine; None: that of its settings.
    """

    settings: Settings
    clip_dir: Path | None = None
    timeout_s: float = 60.0
    work_dir: Path | None = None
    make_client: Callable[..., Client] = Client
    transport: httpx.BaseTransport | None = None
    network_calls: network.Network = field(default_factory=network.Network)
    ask_engine: Callable[[Path | None], EngineReport | None] = machine.ask_engine
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    ticker: Callable[[], float] = time.monotonic


def run_checks(doctor_config: DoctorConfig) -> Iterator[Finding]:
    """Yield each finding as soon as it is known."""
    check_run = _CheckRun(doctor_config)
    yield from check_run.check_network()
    yield from check_run.service()
    yield from check_run.machine()
    yield check_run.round_trip()


class _CheckRun:
    def __init__(self, doctor_config: DoctorConfig) -> None:
        self._doctor_config = doctor_config
        self._target = network.Target(httpx.URL(doctor_config.settings.server))
        self._here = "127.0.0.1"
        self._blocker: str | None = None
        """The failed check on which later checks depend."""
        self._roles: list[str] = []
        self._engines: list[EngineView] = []

    def _noted(self, finding: Finding) -> Finding:
        if finding.outcome == "fail" and self._blocker is None:
            self._blocker = finding.check
        return finding

    def check_network(self) -> Iterator[Finding]:
        """Check name, port and TLS."""
        network_calls = self._doctor_config.network_calls
        proxy = network.proxy_for(self._target, network_calls)
        if proxy is not None:
            through = f"requests go through the proxy {httpx.URL(proxy).host}"
            yield from (skip(check, through) for check in ("name", "port", "tls"))
            return
        yield self._noted(network.check_name(self._target, network_calls))
        if self._blocker is not None:
            yield from self._skipped("port", "tls")
            return
        finding, here = network.check_port(self._target, network_calls)
        self._here = here or self._here
        yield self._noted(finding)
        if finding.outcome == "fail":
            yield from self._skipped("tls")
            return
        tls, is_usable = network.check_tls(self._target, network_calls)
        yield tls if is_usable else self._noted(tls)

    def service(self) -> Iterator[Finding]:
        """Check the daemon by HTTP."""
        if self._blocker is not None:
            yield from self._skipped("http", "clock", "key", "version", "ready", "engines")
            return
        with self._http() as http:
            service = Service(http, self._doctor_config.clock)
            try:
                yield from self._check_service(service)
            except (*_NO_DAEMON, TimeoutError) as error:
                reason = plain_reason(str(error)) or type(error).__name__
                detail = f"the daemon's replies became invalid: {reason}"
                yield self._noted(fail("http", detail, "Try again; see the daemon's log."))
            self._roles = service.roles

    def _check_service(self, service: Service) -> Iterator[Finding]:
        first, *clock = within(SERVICE_S, service.check_http)
        yield self._noted(first)
        if self._blocker is not None:
            yield from self._skipped("clock", "key", "version", "ready", "engines")
            return
        yield from clock
        has_key = self._doctor_config.settings.api_key is not None
        yield self._noted(within(SERVICE_S, lambda: service.check_key(has_key=has_key)))
        yield within(SERVICE_S, service.check_version)
        yield self._noted(within(SERVICE_S, service.check_ready))
        finding, self._engines = within(SERVICE_S, service.check_engines)
        yield self._noted(finding)

    def machine(self) -> Iterator[Finding]:
        """Check ffmpeg and the disk of this machine."""
        report = self._doctor_config.ask_engine(self._doctor_config.work_dir)
        yield machine.check_ffmpeg(report)
        yield machine.check_disk(report, self._doctor_config.work_dir)

    def round_trip(self) -> Finding:
        """Check that a clip goes to an engine and comes back encoded."""
        if self._blocker is not None:
            return next(self._skipped(ROUND_TRIP))
        if not {"read", "submit"} <= set(self._roles):
            return skip(ROUND_TRIP, "needs a key with the roles read and submit")
        doctor_config = self._doctor_config
        with doctor_config.make_client(
            doctor_config.settings.server, doctor_config.settings.api_key
        ) as client:
            trip = RoundTrip(
                client,
                self._engines,
                self._here,
                clip_dir=doctor_config.clip_dir,
                timeout_s=doctor_config.timeout_s,
                sleep=doctor_config.sleep,
                ticker=doctor_config.ticker,
            )
            try:
                return trip.check()
            except ClientError as error:
                return fail(ROUND_TRIP, error.message, error.hint or "See the daemon's log.")
            except OSError as error:
                detail = f"this machine cannot listen at {self._here}: {error.strerror or error}"
                return fail(ROUND_TRIP, detail, "Use a shared folder instead: --clip-dir DIR")

    def _skipped(self, *checks: str) -> Iterator[Finding]:
        for check in checks:
            yield skip(check, f"needs the check {self._blocker}, which failed")

    def _http(self) -> httpx.Client:
        settings = self._doctor_config.settings
        return httpx.Client(
            base_url=settings.server.rstrip("/"),
            headers=key_headers(settings.api_key),
            timeout=CHECK_S,
            transport=self._doctor_config.transport,
            verify=verification(self._doctor_config.transport),
            trust_env=self._target.host not in LOOPBACK_HOSTS,
        )
