"""First come, first served: the job at the head of the line goes to the engine that asks first.

Nothing is kept for anybody: no engine's speed, size or benchmark counts, and no job waits for a
better engine. When nobody in particular is asking (`POST /assign_job/` with `{}`), any idle engine
will do, the fastest that is known first.
"""

from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place


class Fifo:
    """See the module."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose whoever asks."""
        asking = engines.asking()
        if asking is not None:
            return Place(asking.engine_id, "first come, first served: it asked first")
        engine = engines.fastest() or next(iter(engines))
        return Place(engine.engine_id, "first come, first served: it is idle")


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Offer the policy."""
    registrar.add("fifo", _make)


def _make(context: PluginContext) -> Fifo:
    return Fifo()
