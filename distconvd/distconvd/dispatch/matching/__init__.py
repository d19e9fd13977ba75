"""Index the pending jobs (the queue) and the available engines (the pool).

Both are derived from the records and rebuilt from them at start; neither knows policies or time.
"""

from distconvd.dispatch.matching.pool import AvailableEngines, EngineEntry, EnginePool
from distconvd.dispatch.matching.queue import JobQueue
from distconvd.dispatch.matching.requirements import Requirements, requirements_of

__all__ = [
    "AvailableEngines",
    "EngineEntry",
    "EnginePool",
    "JobQueue",
    "Requirements",
    "requirements_of",
]
