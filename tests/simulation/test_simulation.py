"""The whole daemon in virtual time among 2,000 engines, most of them unreliable.

`DISTCONV_SIM_SEED=n` runs one seed, `DISTCONV_SIM_JOBS` and `DISTCONV_SIM_ENGINES` make it longer.
A seed replays exactly: actors draw from their own dice, trio's scheduler is seeded (under pytest-trio
it runs tasks in an order that depends on its own `Random` alone, which exists so that Hypothesis can
seed it), and the daemon has no randomness of its own. A test holds that.
"""

import os
import sys

import pytest
import trio
from tests.simulation.run import Report, simulate
from tests.simulation.world import Size, World
from trio.testing import MockClock

SEED = int(os.environ.get("DISTCONV_SIM_SEED", "1"))
JOBS = int(os.environ.get("DISTCONV_SIM_JOBS", "2000"))
ENGINES = int(os.environ.get("DISTCONV_SIM_ENGINES", "2000"))


def run(seed: int, size: Size) -> Report:
    """Run one world in a loop of its own, with the scheduler seeded."""
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]

    async def main() -> Report:
        return await simulate(World(seed, size))

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_every_job_ends_and_the_books_agree_whatever_engines_do() -> None:
    report = run(SEED, Size(JOBS, ENGINES, deaths=2))
    sys.stderr.write(f"\n{report.summary}\n")
    for what, count in sorted(report.counts.items()):
        sys.stderr.write(f"  {what}: {count}\n")
    assert not report.faults, f"DISTCONV_SIM_SEED={SEED}: " + "\n".join(report.faults[:50])
