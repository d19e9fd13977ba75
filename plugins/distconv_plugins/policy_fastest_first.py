"""Give every job to the fastest idle engine, whatever its size.

For farms where the time of each job matters and slow engines serve the peaks. An engine without a
benchmark is taken only if no other is idle: its speed is unknown, but it can work.
"""

from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place


class FastestFirst:
    """See the module."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose the fastest engine."""
        engine = engines.fastest()
        if engine is not None:
            reason = f"the fastest idle engine (benchmark {engine.benchmark_s:g} s)"
            return Place(engine.engine_id, reason)
        engine = next(iter(engines))
        return Place(engine.engine_id, "no idle engine has a benchmark, so any one is taken")


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add("fastest-first", _make)


def _make(context: PluginContext) -> FastestFirst:
    return FastestFirst()
