"""Encode where and when electricity is cheap: an example of a complete distconvd plugin.

- The policy `cheap-hours`: a job goes to the fastest engine with a preferred tag, if there is one;
  in the dear hours a job of normal priority waits for the next cheap one.
- A check of submissions: a job that is too large for the dear hours must not be urgent.
- A route: `GET /cheap-hours` returns the price of this hour and the next cheap hour.
"""

import json
import time
from collections.abc import Callable

import msgspec

from distconvd import hookimpl
from distconvd.errors import BadRequest, ConfigError
from distconvd.hookspecs import (
    PluginContext,
    PolicyFactory,
    Registrar,
    RoutesFactory,
    SettingsRegistrar,
)
from distconvd.model import Job, Submission
from distconvd.plugin_api import Request, Response, Route
from distconvd.policy import EngineInfo, Hold, IdleEngines, Place

NAME = "cheap-hours"
HOUR_MS = 3_600_000
URGENT = 2
URGENT_MB_MAX = 10_000.0
PRICES = [0.20] * 7 + [0.35] * 3 + [0.25] * 7 + [0.40] * 4 + [0.20] * 3


class CheapHoursSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.cheap-hours]`."""

    prefer_tag: str = "solar"
    """Engines with this tag come first."""
    dear_from: float = 0.30
    """An hour at this price or above is dear."""
    prices: list[float] = msgspec.field(default_factory=lambda: [*PRICES])
    """The price of each hour of the day (UTC), 24 of them."""


class Tariff:
    """The prices, and which hours are dear.

    Args:
        settings: the prices.
    """

    def __init__(self, settings: CheapHoursSettings) -> None:
        if len(settings.prices) != 24:
            raise ConfigError(f"[plugin.{NAME}] prices: expected 24, one for each hour of the day.")
        if min(settings.prices) >= settings.dear_from:
            raise ConfigError(f"[plugin.{NAME}]: every hour is dear, so nothing would ever run.")
        self._settings = settings

    def price(self, now_ms: int) -> float:
        """Return the price of the present hour."""
        return self._settings.prices[now_ms // HOUR_MS % 24]

    def is_dear(self, now_ms: int) -> bool:
        """Whether the present hour is dear."""
        return self.price(now_ms) >= self._settings.dear_from

    def next_cheap_ms(self, now_ms: int) -> int:
        """Return when the next cheap hour begins; `now_ms` if the present one is cheap."""
        if not self.is_dear(now_ms):
            return now_ms
        hour_ms = now_ms - now_ms % HOUR_MS
        while self.is_dear(hour_ms):
            hour_ms += HOUR_MS
        return hour_ms


class CheapHours:
    """The policy; see the module."""

    def __init__(self, settings: CheapHoursSettings) -> None:
        self._tag = settings.prefer_tag
        self._tariff = Tariff(settings)

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose an engine, or hold the job until electricity is cheap."""
        if job.priority == 0 and self._tariff.is_dear(now_ms):
            price = self._tariff.price(now_ms)
            until_ms = self._tariff.next_cheap_ms(now_ms)
            return Hold(
                f"electricity costs {price:.2f} now; the job waits for a cheap hour", until_ms
            )
        # The engines are sorted, the fastest first; those without a benchmark get no jobs here.
        measured = [engine for engine in engines if engine.benchmark_s is not None]
        if not measured:
            return Hold("no idle engine has a benchmark")
        engine = next((e for e in measured if self._tag in e.tags), measured[0])
        return Place(engine.engine_id, self._reason(engine))

    def _reason(self, engine: EngineInfo) -> str:
        if self._tag in engine.tags:
            return f"the fastest idle engine with the tag {self._tag}"
        return f"the fastest idle engine; no engine with the tag {self._tag} is idle"


def routes(tariff: Tariff, now_ms: Callable[[], int]) -> list[Route]:
    """Return `GET /cheap-hours`."""

    async def show_prices(request: Request) -> Response:
        now = now_ms()
        answer = {
            "price": tariff.price(now),
            "is_dear": tariff.is_dear(now),
            "next_cheap_ms": tariff.next_cheap_ms(now),
        }
        return Response(200, json.dumps(answer).encode())

    return [
        Route("GET", "/cheap-hours", show_prices, role="read", summary="The price of this hour")
    ]


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.cheap-hours]`."""
    registrar.add(NAME, CheapHoursSettings)


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add(NAME, lambda context: CheapHours(_settings(context)))


@hookimpl
def distconvd_register_routes(registrar: Registrar[RoutesFactory]) -> None:
    """Register the route."""
    registrar.add(NAME, lambda context: routes(Tariff(_settings(context)), _wall_ms))


@hookimpl
def distconvd_review_submission(submission: Submission) -> Submission | None:
    """Reject urgent jobs that are very large: they would run through every dear hour."""
    if submission.priority == URGENT and submission.job_size > URGENT_MB_MAX:
        raise BadRequest(
            f"A job of more than {URGENT_MB_MAX:g} MB cannot be urgent; use priority 1.",
            field="priority",
        )
    return None


def _settings(context: PluginContext) -> CheapHoursSettings:
    return context.settings(NAME, CheapHoursSettings)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
