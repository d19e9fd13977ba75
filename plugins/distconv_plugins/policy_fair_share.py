"""Divide the queue into shares by a label, with weights, so that teams take turns.

Among jobs of one priority, the share that was served least lately comes next, so that ten thousand
jobs of one team keep no other team waiting; within a share, the oldest job comes first. No share
starves, whatever the weights. A setting chooses whether a job counts as one or by its size. A job
without the label belongs to the share "". Another policy chooses the engine.

A running job is never stopped for another share, priority takes precedence over shares, and the
count starts from zero with the daemon.
"""

from typing import Annotated, Literal

import msgspec

from distconvd import hookimpl
from distconvd.errors import ConfigError
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar, SettingsRegistrar
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place, Policy, Share

NAME = "fair-share"


class FairShareSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.fair-share]`."""

    label: str = "team"
    """The label that names a job's share."""
    weights: dict[str, float] = {}
    """A share of weight 2 gets twice what one of weight 1 gets, while both wait."""
    default_weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """The weight of a share that `weights` does not name."""
    count: Literal["jobs", "mb"] = "jobs"
    """A job counts as one, or by its `job_size` (at least 1 MB)."""
    policy: str = "size-aware"
    """The policy that chooses the engine."""


class FairShare:
    """See the module.

    Args:
        settings: the shares.
        inner: chooses the engine.
    """

    def __init__(self, settings: FairShareSettings, inner: Policy) -> None:
        weights = {**settings.weights, "default_weight": settings.default_weight}
        for name, weight in weights.items():
            if not 0.001 <= weight <= 1000:
                raise ConfigError(
                    f"[plugin.{NAME}] the weight of {name!r} is {weight:g}; expected 0.001 to 1000"
                )
        self._settings = settings
        self._inner = inner

    def share(self, job: Job) -> Share:
        """See `SharingPolicy.share`."""
        settings = self._settings
        name = job.labels.get(settings.label, "")
        amount = max(1.0, job.job_size) if settings.count == "mb" else 1.0
        return Share(name, amount / settings.weights.get(name, settings.default_weight))

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Ask the other policy."""
        return self._inner.place(job, engines, now_ms)


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.fair-share]`."""
    registrar.add(NAME, FairShareSettings)


def _make(context: PluginContext) -> FairShare:
    settings = context.settings(NAME, FairShareSettings)
    return FairShare(settings, context.policy(settings.policy))
