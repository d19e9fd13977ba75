"""Run the bench: `python -m bench [--short] [--only PART] [--base REV] [--out DIR]`.

It prints a table, and writes JSON and a plot. The parts are daemon, neighbour, engine and small-jobs.
With `--base` it compares this checkout's daemon with that of another revision, and nothing else.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.compared import compared_with
from bench.engine_cost import engine_cost
from bench.neighbour import neighbour_ratios
from bench.plot import bars
from bench.push import push_latency
from bench.scenarios import (
    Audit,
    disk_rate,
    request_ratios,
    start_time,
    whole_jobs,
)
from bench.small_jobs import small_jobs
from bench.table import LONG, SHORT, Row, Scale

PARTS = ("daemon", "neighbour", "engine", "small-jobs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the accounting is exact; missed goals are shown, but are no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="run for a few seconds, to check that it works"
    )
    parser.add_argument("--only", choices=PARTS, help="run one part; default: all")
    parser.add_argument("--base", metavar="REV", help="compare the daemon with this revision's")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bench-output"),
        help="output directory; default: bench-output",
    )
    given = parser.parse_args(arguments)
    scale = SHORT if given.short else LONG
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.out) as name:
        folder = Path(name).resolve()
        if given.base:
            rows, faults = compared_with(given.base, folder / "base", scale)
        else:
            rows, faults = _parts([given.only] if given.only else PARTS, folder, scale)
    _print(table(rows))
    for fault in faults:
        _print(f"audit: {fault}")
    _print(f"audit: {len(faults)} fault{'' if len(faults) == 1 else 's'}")
    report = {"rows": [_as_dict(row) for row in rows], "audit_faults": faults}
    part = "base" if given.base else given.only
    stem = f"bench-{part}" if part else "bench"
    (given.out / f"{stem}.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    (given.out / f"{stem}.svg").write_text(bars(rows), "utf-8")
    return 1 if faults else 0


def _parts(parts: Sequence[str], folder: Path, scale: Scale) -> tuple[list[Row], list[str]]:
    """Run some parts; return the rows and the faults of the accounting."""
    rows, faults = list[Row](), list[str]()
    if "daemon" in parts:
        rows, faults = _daemon(folder, scale)
    if "neighbour" in parts:
        more, more_faults = neighbour_ratios(folder / "neighbour", scale)
        rows, faults = rows + more, faults + more_faults
        if not more:
            _print("beanstalkd is not installed: the rows that compare with it are skipped")
    if "engine" in parts:
        rows += engine_cost(folder / "engine", scale)
    if "small-jobs" in parts:
        rows += small_jobs(folder / "small-jobs", scale)
    return rows, faults


def _daemon(folder: Path, scale: Scale) -> tuple[list[Row], list[str]]:
    """Run the daemon's part; return the rows and the faults of the accounting."""
    (folder / "ratios").mkdir()
    audit = Audit(folder / "ratios")
    _print(f"raw disk: {disk_rate(folder, scale.seconds):.0f} fdatasync/s of 4 KiB appends")
    rows = request_ratios(folder / "ratios", scale, audit)
    audit.close()
    rows += whole_jobs(folder, scale, audit)
    rows += push_latency(folder / "push", scale)
    rows += start_time(folder / "start", scale)
    return rows, audit.faults


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [f"{'measurement':48} {'value':>10} {'goal':>10} {'p50 ms':>8} {'p99 ms':>8}  note"]
    for row in rows:
        sign = ">=" if row.better == "more" else "<="
        p50 = "" if row.p50_ms is None else f"{row.p50_ms:.1f}"
        p99 = "" if row.p99_ms is None else f"{row.p99_ms:.1f}"
        value = f"{row.value:.2f} {row.unit}" if row.value < 100 else f"{row.value:.0f} {row.unit}"
        mark = "" if row.is_reached else "  MISSED"
        lines.append(
            f"{row.name:48} {value:>10} {sign + f'{row.goal:g}':>10} {p50:>8} {p99:>8}"
            f"  {row.note}{mark}"
        )
    return "\n".join(lines)


def _as_dict(row: Row) -> dict[str, object]:
    return {**vars(row), "is_reached": row.is_reached}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
