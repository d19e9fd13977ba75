"""Filter the idle engines, for policies that wrap another policy."""

from collections.abc import Callable, Iterator

from distconvd.policy import EngineInfo, IdleEngines


class OpenEngines:
    """The idle engines (`distconvd.policy.IdleEngines`) for which `is_open` is true.

    While the best engine is open this is as fast as the original; else it searches all engines.
    """

    def __init__(self, engines: IdleEngines, is_open: Callable[[EngineInfo], bool]) -> None:
        self._engines = engines
        self._is_open = is_open

    def fastest(self, *, streaming: bool = False) -> EngineInfo | None:
        best = self._engines.fastest(streaming=streaming)
        if best is None or self._is_open(best):
            return best
        return next((e for e in self._ranked() if e.streaming or not streaming), None)

    def slowest(self) -> EngineInfo | None:
        worst = self._engines.slowest()
        if worst is None or self._is_open(worst):
            return worst
        *_, last = (None, *self._ranked())
        return last

    def get(self, engine_id: str) -> EngineInfo | None:
        found = self._engines.get(engine_id)
        return found if found is not None and self._is_open(found) else None

    def asking(self) -> EngineInfo | None:
        found = self._engines.asking()
        return found if found is not None and self._is_open(found) else None

    def __iter__(self) -> Iterator[EngineInfo]:
        return (engine for engine in self._engines if self._is_open(engine))

    def _ranked(self) -> Iterator[EngineInfo]:
        return (engine for engine in self if engine.benchmark_s is not None)
