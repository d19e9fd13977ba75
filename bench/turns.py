"""Let two servers take turns under load, and compare their rates."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.load import Result
from bench.table import Row

Load = Callable[[], Result]


@dataclass
class Rates:
    """The rates of both servers, a pair for each turn, and the subject's last result."""

    subject: list[float] = field(default_factory=list[float])
    base: list[float] = field(default_factory=list[float])
    last: Result = field(default_factory=Result)

    @property
    def ratios(self) -> list[float]:
        """The subject's rate divided by the base's, for each turn."""
        return [s / b for s, b in zip(self.subject, self.base, strict=True)]

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the ratios."""
        if len(self.ratios) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return (high - low) / 2

    def row(self, name: str, goal: float, *, requests_each: int = 1) -> Row:
        """Return the median of the ratios as a row; its note counts by `requests_each`."""
        ours, theirs = (
            statistics.median(rates) / requests_each for rates in (self.subject, self.base)
        )
        note = f"{ours:.0f}/s against {theirs:.0f}/s; ±{self.spread:.2f} in {len(self.base)} turns"
        p50, p99 = self.last.percentile_ms(0.5), self.last.percentile_ms(0.99)
        return Row(name, statistics.median(self.ratios), "x", goal, "more", p50, p99, note)


def take_turns(subject: Load, base: Load, turns: int) -> Rates:
    """Run both loads alternately; who goes first alternates, too."""
    rates = Rates()
    for number in range(turns):
        sides = [(subject, rates.subject), (base, rates.base)]
        for load, found in sides if number % 2 else reversed(sides):
            result = load()
            found.append(result.rate)
            if load is subject:
                rates.last = result
    return rates


def faults_of(what: str, results: Sequence[Result]) -> list[str]:
    """Return a sentence for each result with other replies than successes."""
    bad = [reply for result in results for reply in result.bad]
    return [f"{what}: {len(bad)} bad replies; the first: {bad[0]}"] if bad else []
