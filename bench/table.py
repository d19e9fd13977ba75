"""Define a row of the bench's table, and the amount of load."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table; `better` says on which side of `goal` the value should be."""

    name: str
    value: float
    unit: str
    goal: float
    better: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal if self.better == "more" else self.value <= self.goal


@dataclass(frozen=True)
class Scale:
    """The amount of load: `LONG` is the real bench, `SHORT` only checks that it works."""

    seconds: float
    rounds: int
    turns: int
    stored: int
    engines: int
    cycles: int
    start_jobs: int
    clip_s: int
    clip_rounds: int
    small_clips: int


LONG = Scale(
    seconds=3.0, rounds=5, turns=9, stored=100_000, engines=1000, cycles=10_000, start_jobs=1_000_000,
    clip_s=60, clip_rounds=3, small_clips=40,
)  # fmt: skip
SHORT = Scale(
    seconds=0.4, rounds=1, turns=2, stored=2_000, engines=100, cycles=300, start_jobs=5_000,
    clip_s=2, clip_rounds=1, small_clips=2,
)  # fmt: skip
