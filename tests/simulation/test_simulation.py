"""Run the whole daemon in virtual time with 2,000 engines, many of them unreliable.

`DISTCONV_SIM_SEED=n` replays one seed exactly (see `replay`), `DISTCONV_SIM_JOBS`,
`DISTCONV_SIM_ENGINES` and `DISTCONV_SIM_DEATHS` make it longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.replay import run
from tests.simulation.world import Size

SEED = int(os.environ.get("DISTCONV_SIM_SEED", "1"))
JOBS = int(os.environ.get("DISTCONV_SIM_JOBS", "2000"))
ENGINES = int(os.environ.get("DISTCONV_SIM_ENGINES", "2000"))
DEATHS = int(os.environ.get("DISTCONV_SIM_DEATHS", "2"))
ROOT = Path(__file__).parents[2]

WORTH_IT = [
    "abandoned", "crash", "hang", "resumed", "assigned to pending", "completed to pending",
    "assigned to failed_permanently", "assigned to cancelled", "pending to cancelled",
    "late 409", "contradiction 409", "key-reuse 422", "verdict cancel", "complete 409",
    "lie-theft/complete 409", "lie-invention/fail 409", "lie-claims 200", "lie-oversized 413",
    "lie-key 401", "lie-phantom/release 404", "lie-nonsense 400", "submit 503",
]  # fmt: skip
"""What must have happened in a run of the default size for it to prove anything."""


@pytest.mark.slow
def test_every_job_ends_and_all_books_agree_whatever_engines_clients_and_disk_do() -> None:
    report = run(SEED, Size(JOBS, ENGINES, DEATHS))
    sys.stderr.write(f"\n{report.summary}\n")
    assert not report.faults, "\n".join([f"DISTCONV_SIM_SEED={SEED}", *report.faults[:40]])
    if JOBS >= 2000 and ENGINES >= 2000:
        missing = [what for what in WORTH_IT if not report.counts.get(what)]
        assert not missing, f"DISTCONV_SIM_SEED={SEED}: nothing of {missing} ever happened"


@pytest.mark.slow
def test_a_seed_replays_exactly_in_any_process() -> None:
    outputs = [_replayed(hash_seed) for hash_seed in ("1", "2")]
    assert outputs[0] == outputs[1]
    assert "0 faults; transcript" in outputs[0]


def _replayed(hash_seed: str) -> str:
    """Run a small world in a process of its own, with another order of sets."""
    command = [sys.executable, "-m", "tests.simulation.replay", str(SEED), "60", "150", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout
