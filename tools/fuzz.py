"""Fuzz the edge for longer; tests/edge/test_fuzz.py describes the invariant.

`make fuzz` runs this in .venv. It repeats the suite's fuzzers with many more streams, round after round,
each with a new seed, which is printed before the round begins, so that it can be repeated however the
round ends. It stops after the given time, or at the first stream that breaks the invariant, which
Hypothesis has shrunk as far as it could. Exit 0 or 1.
"""

import argparse
import os
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZERS = ["tests/edge/test_fuzz.py", "tests/edge/test_fuzz_daemon.py"]
ROUND_S_MAX = 3_600
"""A round that takes longer has hung, which is a finding, too."""


def parse(words: list[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Fuzz the HTTP edge.",
        epilog="example: make fuzz MINUTES=60; to repeat a round: tools/fuzz.py --seed 12345",
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="start no round after (5)")
    parser.add_argument("--examples", type=int, default=1_000, help="streams per fuzzer (1000)")
    parser.add_argument("--seed", type=int, help="run one round with this seed")
    return parser.parse_args(words)


def run_round(seed: int, examples: int) -> int:
    """Run the fuzzers once, with pytest's output on the terminal; return its exit code."""
    command = [sys.executable, "-m", "pytest", "-q", *FUZZERS, f"--hypothesis-seed={seed}"]
    environ = {**os.environ, "FUZZ_EXAMPLES": str(examples)}
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environ, check=False, timeout=ROUND_S_MAX
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"the round has not ended within {ROUND_S_MAX} s")
        return 1


def main(words: list[str]) -> int:
    """Run round after round; return the exit code."""
    asked = parse(words)
    ends_at = time.monotonic() + asked.minutes * 60
    number = 0
    while number == 0 or (asked.seed is None and time.monotonic() < ends_at):
        number += 1
        seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
        print(f"round {number}, seed {seed}, {asked.examples} streams each", flush=True)
        if run_round(seed, asked.examples) != 0:
            again = ["tools/fuzz.py", f"--seed={seed}", f"--examples={asked.examples}"]
            print(f"found something; repeat it with: .venv/bin/python {shlex.join(again)}")
            return 1
    print(f"{number} round{'' if number == 1 else 's'}, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
