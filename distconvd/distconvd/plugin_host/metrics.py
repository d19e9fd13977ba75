"""Render plugins' metrics (`distconvd_register_metrics`), each set separately.

So a set that raises, returns nonsense, uses a name that is taken or never ends loses only its own lines:
that is logged once and counted at every scrape, and the rest of `/metrics` is served.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from distconvd.faults import reraise_if_cancelled

log = logging.getLogger("distconvd.plugins")

SAMPLES_MAX = 10_000
"""Samples of one set: labels that grow without end would fill the memory of the scraper."""

Collect = Callable[[], object]


class PluginMetrics:
    """See the module.

    Args:
        sources: the name of each set and what collects it.
        taken: names of the daemon's own metrics.
    """

    def __init__(self, sources: Sequence[tuple[str, Collect]], taken: Collection[str] = ()) -> None:
        self._sources = sources
        self._owners = dict.fromkeys(taken, "distconvd")
        self._failing: set[str] = set()
        self.failures: Counter[str] = Counter({name: 0 for name, _ in sources})
        """How often each set could not be shown."""

    def render(self) -> bytes:
        """Return every set that can be shown, in the text format."""
        return b"".join(self._render(name, collect) for name, collect in self._sources)

    def _render(self, name: str, collect: Collect) -> bytes:
        try:
            text = generate_latest(_Families(self._checked(name, collect())))
        except BaseException as error:
            reraise_if_cancelled(error)
            self.failures[name] += 1
            if name not in self._failing:
                log.exception("the metrics %s cannot be shown and are left out of /metrics", name)
            self._failing.add(name)
            return b""
        self._failing.discard(name)
        return text

    def _checked(self, name: str, collected: object) -> list[Metric]:
        """Return what was collected if it is valid metrics; else raises `ValueError`."""
        if not isinstance(collected, Iterable):
            raise ValueError(f"collect() returned {collected!r} instead of metrics")
        found: list[Metric] = []
        samples = 0
        for family in collected:  # pyright: ignore[reportUnknownVariableType] - a plugin may answer anything
            if not isinstance(family, Metric):
                raise ValueError(f"collect() yielded {family!r} instead of a metric")
            owner = self._owners.setdefault(family.name, name)
            if owner != name:
                raise ValueError(f"the metric {family.name} is taken by {owner}")
            samples += len(family.samples)
            if samples > SAMPLES_MAX:
                raise ValueError(f"collect() yielded more than {SAMPLES_MAX} samples")
            found.append(family)
        return found


class _Families(Collector):
    """Metrics that have been collected."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families
