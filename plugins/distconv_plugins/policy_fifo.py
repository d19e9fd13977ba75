"""Give the first job of the queue to the engine that asks first.

No job waits for a better engine: neither speed nor job size counts. When no particular engine is
asking (`POST /assign_job/` with `{}`), any idle engine is taken, the fastest that is known first.
"""

from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place


class Fifo:
    """See the module."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose the engine that asks."""
        asking = engines.asking()
        if asking is not None:
            return Place(asking.engine_id, "first come, first served: it asked first")
        engine = engines.fastest() or next(iter(engines))
        return Place(engine.engine_id, "first come, first served: it is idle")


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add("fifo", _make)


def _make(context: PluginContext) -> Fifo:
    return Fifo()
