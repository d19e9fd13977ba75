"""Choose the engine by the job's size, as the original's README states; the default policy.

Small jobs go to the slowest idle engine, so that the faster ones stay free; medium ones to the
fastest; large ones to the fastest that streams, else the fastest. Engines without a benchmark get
no jobs.
"""

from typing import Annotated

import msgspec

from distconvd import hookimpl
from distconvd.errors import ConfigError
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar, SettingsRegistrar
from distconvd.model import Job
from distconvd.policy import EngineInfo, Hold, IdleEngines, Place


class SizeAwareSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.size-aware]`."""

    medium_from_mb: Annotated[float, msgspec.Meta(ge=0)] = 50.0
    """Jobs from this size on are medium."""
    large_from_mb: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    """Jobs from this size on are large."""


class SizeAware:
    """See the module."""

    def __init__(self, settings: SizeAwareSettings | None = None) -> None:
        self._settings = settings or SizeAwareSettings()
        if self._settings.medium_from_mb > self._settings.large_from_mb:
            raise ConfigError(
                "[plugin.size-aware] medium_from_mb cannot be greater than large_from_mb"
            )

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose by the size of the job."""
        if job.job_size < self._settings.medium_from_mb:
            return _place(engines.slowest(), "a small job goes to the slowest idle engine")
        if job.job_size < self._settings.large_from_mb:
            return _place(engines.fastest(), "a medium job goes to the fastest idle engine")
        streaming = engines.fastest(streaming=True)
        if streaming is not None:
            return _place(streaming, "a large job goes to the fastest idle engine that streams")
        return _place(engines.fastest(), "no idle engine streams: a large job goes to the fastest")


def _place(engine: EngineInfo | None, reason: str) -> Place | Hold:
    if engine is None:
        return Hold("no idle engine that could take the job has a benchmark")
    return Place(engine.engine_id, f"{reason} (benchmark {engine.benchmark_s:g} s)")


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.size-aware]`."""
    registrar.add("size-aware", SizeAwareSettings)


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add("size-aware", _make)


def _make(context: PluginContext) -> SizeAware:
    return SizeAware(context.settings("size-aware", SizeAwareSettings))
