"""All checks in their order, each only where what it needs has not failed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from distconv_client.api import LOOPBACK_HOSTS, Client
from distconv_client.certificates import verification
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
"""A check by HTTP is a few requests, each with a bound; a server that dribbles is not waited for."""
_NO_DAEMON = (httpx.HTTPError, ValueError, AttributeError, msgspec.DecodeError)
"""What comes of replies that no daemon would send."""


@dataclass
class Patient:
    """Whom to examine, and how; the callables are doors for tests.

    Args:
        settings: the daemon's address and the key.
        clip_dir: a folder that is shared with engines, for the round trip.
        timeout_s: how long the round trip may take.
        work_dir: that of an engine on this machine; None: the one that its settings name.
    """

    settings: Settings
    clip_dir: Path | None = None
    timeout_s: float = 60.0
    work_dir: Path | None = None
    make_client: Callable[..., Client] = Client
    transport: httpx.BaseTransport | None = None
    doors: network.Network = field(default_factory=network.Network)
    ask_engine: Callable[[Path | None], EngineReport | None] = machine.ask_engine
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    ticker: Callable[[], float] = time.monotonic


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield each finding as soon as there is one."""
    examination = _Examination(patient)
    yield from examination.way()
    yield from examination.service()
    yield from examination.machine()
    yield examination.round_trip()


class _Examination:
    def __init__(self, patient: Patient) -> None:
        self._patient = patient
        self._target = network.Target(httpx.URL(patient.settings.server))
        self._here = "127.0.0.1"
        self._hindrance: str | None = None
        """The check that failed and that what follows needs."""
        self._roles: list[str] = []
        self._engines: list[EngineView] = []

    def _noted(self, finding: Finding) -> Finding:
        if finding.outcome == "fail" and self._hindrance is None:
            self._hindrance = finding.check
        return finding

    def way(self) -> Iterator[Finding]:
        """Name, port, TLS."""
        doors = self._patient.doors
        proxy = network.proxy_for(self._target, doors)
        if proxy is not None:
            through = f"requests go through the proxy {httpx.URL(proxy).host}"
            yield from (skip(check, through) for check in ("name", "port", "tls"))
            return
        yield self._noted(network.check_name(self._target, doors))
        if self._hindrance is not None:
            yield from self._skipped("port", "tls")
            return
        finding, here = network.check_port(self._target, doors)
        self._here = here or self._here
        yield self._noted(finding)
        if finding.outcome == "fail":
            yield from self._skipped("tls")
            return
        tls, is_usable = network.check_tls(self._target, doors)
        yield tls if is_usable else self._noted(tls)

    def service(self) -> Iterator[Finding]:
        """What answers there."""
        if self._hindrance is not None:
            yield from self._skipped("http", "clock", "key", "version", "ready", "engines")
            return
        with self._http() as http:
            service = Service(http, self._patient.clock)
            try:
                yield from self._asked(service)
            except (*_NO_DAEMON, TimeoutError) as error:
                told = f"the daemon stopped answering as one: {str(error) or type(error).__name__}"
                yield self._noted(fail("http", told, "Try again; see the daemon's log."))
            self._roles = service.roles

    def _asked(self, service: Service) -> Iterator[Finding]:
        first, *clock = within(SERVICE_S, service.check_http)
        yield self._noted(first)
        if self._hindrance is not None:
            yield from self._skipped("clock", "key", "version", "ready", "engines")
            return
        yield from clock
        has_key = self._patient.settings.api_key is not None
        yield self._noted(within(SERVICE_S, lambda: service.check_key(has_key=has_key)))
        yield within(SERVICE_S, service.check_version)
        yield self._noted(within(SERVICE_S, service.check_ready))
        finding, self._engines = within(SERVICE_S, service.check_engines)
        yield self._noted(finding)

    def machine(self) -> Iterator[Finding]:
        """What this machine has."""
        report = self._patient.ask_engine(self._patient.work_dir)
        yield machine.check_ffmpeg(report)
        yield machine.check_disk(report, self._patient.work_dir)

    def round_trip(self) -> Finding:
        """A clip to an engine and back."""
        if self._hindrance is not None:
            return next(self._skipped(ROUND_TRIP))
        if not {"read", "submit"} <= set(self._roles):
            return skip(ROUND_TRIP, "the key may not both read and submit; one that may would tell")
        patient = self._patient
        with patient.make_client(patient.settings.server, patient.settings.api_key) as client:
            trip = RoundTrip(
                client,
                self._engines,
                self._here,
                clip_dir=patient.clip_dir,
                timeout_s=patient.timeout_s,
                sleep=patient.sleep,
                ticker=patient.ticker,
            )
            try:
                return trip.check()
            except ClientError as error:
                return fail(ROUND_TRIP, error.message, error.hint or "See the daemon's log.")
            except OSError as error:
                told = f"this machine cannot listen at {self._here}: {error.strerror or error}"
                return fail(ROUND_TRIP, told, "Name a shared folder instead: --clip-dir DIR")

    def _skipped(self, *checks: str) -> Iterator[Finding]:
        for check in checks:
            yield skip(check, f"needs what failed before: {self._hindrance}")

    def _http(self) -> httpx.Client:
        settings = self._patient.settings
        return httpx.Client(
            base_url=settings.server.rstrip("/"),
            headers=key_headers(settings.api_key),
            timeout=CHECK_S,
            transport=self._patient.transport,
            verify=verification(self._patient.transport),
            trust_env=self._target.host not in LOOPBACK_HOSTS,
        )
