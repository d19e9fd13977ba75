"""Every job to the fastest idle engine, whatever its size.

For farms where the time of each job counts and the slow engines are there for the rush. An engine
without a benchmark is taken only when no other is idle: its speed is not known, but it can work.
"""

from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place


class FastestFirst:
    """See the module."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose the fastest."""
        engine = engines.fastest()
        if engine is not None:
            reason = f"the fastest idle engine (benchmark {engine.benchmark_s:g} s)"
            return Place(engine.engine_id, reason)
        engine = next(iter(engines))
        return Place(engine.engine_id, "no idle engine has a benchmark: any of them")


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Offer the policy."""
    registrar.add("fastest-first", _make)


def _make(context: PluginContext) -> FastestFirst:
    return FastestFirst()
