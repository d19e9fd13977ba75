"""Replay one run exactly: `python -m tests.simulation.replay SEED JOBS ENGINES DEATHS`.

Everything random is seeded here. Actors draw from dice of their own; trio shuffles the tasks of
each step with a `Random` that pytest-trio makes the only source of their order, so that Hypothesis
can replay them; it is seeded here as Hypothesis does it. The daemon has no dice, and none of its
decisions depends on the order of a set; its request ids are the only bytes that differ between two
runs of one seed, and the transcript leaves them out.
"""

import sys

import pytest_trio.plugin  # type: ignore[import-untyped] # noqa: F401 - importing it makes trio's scheduling deterministic
import trio
from tests.simulation.run import Report, simulate
from tests.simulation.world import Size, World
from trio._core import _run as scheduler
from trio.testing import MockClock


def run(seed: int, size: Size) -> Report:
    """Run one world in a loop of its own."""
    scheduler._r.seed(seed)

    async def main() -> Report:
        return await simulate(World(seed, size))

    return trio.run(main, clock=MockClock(autojump_threshold=0))


if __name__ == "__main__":
    seed, jobs, engines, deaths = map(int, sys.argv[1:])
    report = run(seed, Size(jobs, engines, deaths))
    sys.stdout.write("\n".join([report.summary, *report.faults, ""]))
