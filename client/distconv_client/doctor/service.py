"""Check the daemon by HTTP: its clock, the key, version, readiness and engines."""

import secrets
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib.metadata import version as installed_version

import httpx
import msgspec

from distconv_client.certificates import plain_reason
from distconv_client.display import text
from distconv_client.doctor.finding import Finding, fail, ok, skip
from distconv_client.views import EngineView
from distconvd.model import ProgressReport, Submission

SKEW_S_MAX = 30.0
"""Clocks matter for start times (`not_before`) and ages; half a minute harms neither."""
_REFUSED = frozenset({401, 403})
_PROBES: dict[str, tuple[str, str, msgspec.Struct | None]] = {
    "read": ("GET", "/version", None),
    "submit": ("POST", "/jobs/?dry_run=true", Submission("http://localhost/a.mp4", "h264")),
    "engine": ("POST", "/jobs/0_0/progress", ProgressReport(1)),
    "admin": ("DELETE", "/engines/", None),
}
"""For each role, a request that changes nothing: a dry run, or an ID that does not exist."""


_NO_HANDSHAKE = 400
"""What the daemon answers to a request for a websocket that is none."""


class Service:
    """One daemon, asked without retries.

    Args:
        http: sends requests with the key and a timeout.
        clock: seconds since the epoch.
    """

    def __init__(self, http: httpx.Client, clock: Callable[[], float] = time.time) -> None:
        self._http = http
        self._clock = clock
        self.roles: list[str] = []

    def check_http(self) -> list[Finding]:
        """Check that distconvd answers, and compare its clock."""
        sent_s = self._clock()
        try:
            reply = self._http.get("/livez")
        except httpx.TransportError as error:
            return [
                fail(
                    "http",
                    f"no HTTP server answers: {plain_reason(str(error)) or type(error).__name__}",
                    _other_scheme(self._http),
                )
            ]
        if not reply.is_success or reply.text.strip() != "OK":
            remedy = "Another server or a proxy answers there: check address, port and path."
            return [
                fail(
                    "http",
                    f"GET /livez returned {reply.status_code}, but not distconvd's reply",
                    remedy,
                )
            ]
        return [ok("http", "distconvd answers"), self._clock_finding(reply, sent_s)]

    def _clock_finding(self, reply: httpx.Response, sent_s: float) -> Finding:
        try:
            there_s = parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
        except ValueError:
            return skip("clock", "the reply has no Date header")
        # The date was right at some moment while we waited, and is truncated to whole seconds.
        ahead_s = (
            there_s - self._clock() if there_s > self._clock() else min(0.0, there_s + 1 - sent_s)
        )
        detail = f"the clocks differ by {abs(ahead_s):.0f} s"
        if abs(ahead_s) <= SKEW_S_MAX:
            return ok("clock", detail)
        which = "behind" if ahead_s > 0 else "ahead of"
        remedy = (
            "Synchronize both with NTP (`timedatectl set-ntp true`); jobs use the daemon's clock."
        )
        return fail("clock", f"{detail}: this machine is {which} the daemon", remedy)

    def check_key(self, *, has_key: bool) -> Finding:
        """Find out the key's roles by what the daemon does not refuse."""
        refusals: list[int] = []
        for role, (method, path, body) in _PROBES.items():
            target = path + (f"distconv-doctor-{secrets.token_hex(8)}" if role == "admin" else "")
            status = self._ask(method, target, body)
            if status in _REFUSED:
                refusals.append(status)
            else:
                self.roles.append(role)
        if self.roles:
            detail = f"{'' if has_key else 'no key is needed; '}roles: {', '.join(self.roles)}"
            return ok("key", detail + self._unbound())
        if not has_key:
            remedy = (
                "Give it with --api-key, DISTCONV_API_KEY or api_key in the configuration file."
            )
            return fail("key", "the daemon requires a key, but none was given", remedy)
        remedy = "Compare it with the daemon's; a key of a key file may be revoked or expired (`distconvd keys list`)."
        detail = (
            "the daemon does not accept this key" if 401 in refusals else "this key has no role"
        )
        return fail("key", detail, remedy)

    def _unbound(self) -> str:
        """Return a warning if the key is one of engines, and for any of them."""
        if "engine" not in self.roles or "admin" in self.roles:
            return ""
        # Nothing is opened without a handshake: a key of one engine is refused (403) before that.
        status = self._ask("GET", f"/engines/distconv-doctor-{secrets.token_hex(8)}/ws", None)
        if status != _NO_HANDSHAKE:
            return ""
        return (
            "; warning: it may speak for any engine, give each its own with"
            " `distconvd keys add --role engine --engine ID`"
        )

    def _ask(self, method: str, path: str, body: msgspec.Struct | None) -> int:
        headers = {} if body is None else {"Content-Type": "application/json"}
        content = None if body is None else msgspec.json.encode(body)
        return self._http.request(method, path, content=content, headers=headers).status_code

    def check_version(self) -> Finding:
        """Check that client and daemon have the same version, except for the last number."""
        if "read" not in self.roles:
            return skip("version", "the key does not have the role read")
        there = str(self._http.get("/version").json().get("version"))
        here = installed_version("distconv")
        if there.split(".")[:2] == here.split(".")[:2]:
            return ok("version", f"daemon {there}, client {here}")
        remedy = "Install the same version on both, the daemon first."
        return fail(
            "version", f"the daemon is {text.clean(there)}, but this client is {here}", remedy
        )

    def check_ready(self) -> Finding:
        """Check that the daemon accepts changes."""
        reply = self._http.get("/readyz")
        if reply.is_success:
            warnings: dict[str, str] = reply.json().get("warnings") or {}
            said = "".join(f"; {what}: {warning}" for what, warning in warnings.items())
            return ok("ready", text.clean(f"the daemon accepts jobs{said}"))
        causes = reply.json().get("causes") or {"unknown": f"HTTP {reply.status_code}"}
        detail = "; ".join(f"{cause}: {reason}" for cause, reason in causes.items())
        remedy = "See the daemon's log; usually its disk is full or failing, or it is stopping."
        return fail("ready", text.clean(f"the daemon accepts no jobs: {detail}"), remedy)

    def check_engines(self) -> tuple[Finding, list[EngineView]]:
        """Check that an engine is available, and return those that are."""
        if "read" not in self.roles:
            return skip("engines", "the key does not have the role read"), []
        engines = msgspec.json.decode(self._http.get("/engines/").content, type=list[EngineView])
        able = [e for e in engines if e.status in ("idle", "busy") and e.benchmark_time is not None]
        states = ", ".join(
            f"{text.clean(e.engine_id)} is {text.clean(e.status)}" for e in engines[:10]
        )
        more = f" and {len(engines) - 10} more" if len(engines) > 10 else ""
        if able:
            return ok("engines", f"{len(able)} of {len(engines)} available: {states}{more}"), able
        if not engines:
            remedy = "Start one: distconv-engine --server URL; its log says when it has registered."
            return fail("engines", "no engine has registered", remedy), []
        remedy = "Start them again, or run `distconv engines resume ID`; a new engine first runs its benchmark."
        return fail("engines", f"0 of {len(engines)} available: {states}{more}", remedy), []


def _other_scheme(http: httpx.Client) -> str:
    if http.base_url.scheme == "http":
        return "If the daemon has a certificate, write https:// instead of http://."
    return "If the daemon requires client certificates, use a proxy that has one; this client has none."
