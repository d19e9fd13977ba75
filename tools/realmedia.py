"""Run real files through a daemon and an engine, and print how many come out right.

`make realmedia DIR=FOLDER` runs this in .venv. The folder has the files (`files/`), their right verdicts
(`manifest.json`), and the program that judges (`judge.py`): it starts the daemon and the engine, submits a
job for each file, and looks at every output with tools of its own. This module names the files, the
programs and the ffmpeg, and adds the figures up.

Rules:

- Nothing of the folder is copied into the project, and nothing is written there.
- The files run in pieces. What a piece found is kept in the report, and files that the report has are
  not run again: a run that was interrupted goes on where it ended. Another ffmpeg needs another report.
- The judge is interrupted, never killed, so that it stops the daemon and the engine that it started.
- Good files must be completed without a loss, bad ones never. Others may do either.
- Exit 0: so it was; 1: it was not, and each file is listed with the reason; 2: wrong usage.

    python tools/realmedia.py FOLDER [--ffmpeg system] [--report FILE] [--only TEXT] [--sample 60]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distconv_engine.ffmpeg.tools import find_tools

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
FOLDER_VARIABLE = "DISTCONV_REALMEDIA"
"""Where the real files are; without it, in `shared/realmedia` next to the checkout."""
PIECE_FILES = 25
JOBS_DEADLINE_S = 1200.0
"""For the jobs of one piece; what is not done then counts as failed."""
JUDGE_DEADLINE_S = 3600.0
JUDGE_STOP_S = 60.0
DAEMON = "distconvd --host 127.0.0.1 --port {port} --api-key {key} --state-file {state}"
ENGINE = (
    "distconv-engine --server {url} --api-key {key} --source-root {src} --output {out} --work-dir {work} "
    "--benchmark-every-days 0"
)
Row = dict[str, Any]
"""A file of the manifest; the judge adds its job (`job`) and what is wrong (`found`)."""


@dataclass(frozen=True)
class Figures:
    """What the files have come to."""

    files: int
    good: int
    bad: int
    good_refused: list[Row]
    good_with_loss: list[Row]
    bad_completed: list[Row]
    others_wrong: list[Row]
    """Files that may fail or not: they failed without a reason, or their output lacks something."""
    differences: list[Row]
    """Completed with something else than the source has, which is no loss of picture or sound."""
    made_by: Counter[str]
    """How many outputs each ffmpeg has made."""

    @property
    def is_right(self) -> bool:
        """Whether every good file is completed whole, and no bad one."""
        return not (
            self.good_refused or self.good_with_loss or self.bad_completed or self.others_wrong
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the files that the report lacks, and print the figures of all."""
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder: Path = chosen.folder
    missing = [
        name for name in ("files", "manifest.json", "judge.py") if not (folder / name).exists()
    ]
    if missing:
        print(f"{folder} has no {missing[0]}: it is no folder of real files.", file=sys.stderr)
        return 2
    rows = chosen_rows(read_manifest(folder), chosen.only, chosen.sample)
    known = read_report(chosen.report) if chosen.report else {}
    waiting = [row for row in rows if row["file"] not in known]
    for start in range(0, len(waiting), PIECE_FILES):
        piece = waiting[start : start + PIECE_FILES]
        for row in run_piece(folder, piece, chosen.ffmpeg):
            known[row["file"]] = row
        if chosen.report:
            write_report(chosen.report, known.values())
        print(f"{start + len(piece)} of {len(waiting)} files", file=sys.stderr, flush=True)
    figures = figures_of([known[row["file"]] for row in rows if row["file"] in known])
    print(words_of(figures))
    return 0 if figures.is_right and figures.files == len(rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run real files and print the figures.")
    parser.add_argument("folder", type=Path, help="the folder with files, manifest and judge")
    parser.add_argument("--ffmpeg", default="", help="system, or a path; default: the bundled one")
    parser.add_argument("--report", type=Path, help="keep what was found here, and go on from it")
    parser.add_argument("--only", default="", help="only files whose names have this pattern")
    parser.add_argument("--sample", type=int, help="only so many files, of all kinds")
    return parser


def default_folder() -> Path | None:
    """Return where the real files are on this machine, if they are."""
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else ROOT.parent / "shared" / "realmedia"
    return folder if (folder / "manifest.json").is_file() else None


# ------------------------------------------------------------------------------------------ the files


def read_manifest(folder: Path) -> list[Row]:
    """Return the rows of the manifest, one a file."""
    rows: list[Row] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return rows


def chosen_rows(rows: Sequence[Row], only: str = "", sample: int | None = None) -> list[Row]:
    """Return the files whose names have the pattern `only`; of these `sample`, of all kinds."""
    found = [row for row in rows if re.search(only, row["file"])]
    return found if sample is None else _sample(found, sample)


def _sample(rows: Sequence[Row], number: int) -> list[Row]:
    """Take one of each kind in turn, those with the fewest frames first, until there are enough."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in sorted(rows, key=_cost):
        kinds.setdefault(_kind(row), []).append(row)
    turns = [row for turn in range(len(rows)) for row in _nth_of_each(kinds.values(), turn)]
    names = {row["file"] for row in turns[:number]}
    return [row for row in rows if row["file"] in names]


def _nth_of_each(kinds: Iterable[Sequence[Row]], turn: int) -> list[Row]:
    return [rows[turn] for rows in kinds if turn < len(rows)]


def _kind(row: Row) -> tuple[str, ...]:
    return (row["verdict"], str(row.get("container")), row["codec"])


def _cost(row: Row) -> tuple[float, str]:
    return (row.get("video_frames") or 0) + sum(row.get("audio_seconds") or []), row["file"]


# -------------------------------------------------------------------------------------------- the run


def run_piece(folder: Path, rows: Sequence[Row], ffmpeg: str) -> list[Row]:
    """Let the judge run `rows`; returns them with what it found. Raises if it does not get there."""
    names = "|".join(re.escape(row["file"]) for row in rows)
    tools = find_tools(None)  # the judge looks at every output with the same tools
    environ = {**os.environ, "FFMPEG": tools.ffmpeg, "FFPROBE": tools.ffprobe}
    engine = f"{BIN / ENGINE}" + (f" --ffmpeg {ffmpeg}" if ffmpeg else "")
    with tempfile.TemporaryDirectory(prefix="distconv-realmedia-") as scratch:
        report = Path(scratch) / "report.json"
        argv = [sys.executable, str(folder / "judge.py"), str(folder / "files")]
        argv += ["--daemon", str(BIN / DAEMON), "--engine", engine, "--only", f"^(?:{names})$"]
        argv += ["--timeout", str(JOBS_DEADLINE_S), "--report", str(report)]
        code, log = _run_judge(argv, environ, Path(scratch) / "judge.log")
        if not report.exists():
            raise SystemExit(f"The judge ended with exit code {code}: {log[-2000:]}")
        return list(read_report(report).values())


def _run_judge(argv: Sequence[str], environ: Mapping[str, str], log: Path) -> tuple[int, str]:
    """Run the judge to its end; if we are interrupted or it is too slow, it is, too."""
    with log.open("w") as output:
        process = subprocess.Popen(argv, env=environ, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(JUDGE_DEADLINE_S)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait(JUDGE_STOP_S)
            raise
    return code, log.read_text(encoding="utf-8", errors="replace")


def read_report(path: Path) -> dict[str, Row]:
    """Return the rows of a report by file; none if there is no report yet."""
    if not path.exists():
        return {}
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return {row["file"]: row for row in rows}


def write_report(path: Path, rows: Iterable[Row]) -> None:
    """Replace the report, so that it is always whole."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")
    unfinished.rename(path)


# ---------------------------------------------------------------------------------------- the figures


def figures_of(rows: Sequence[Row]) -> Figures:
    """Sort the judged files; pure."""
    good = [row for row in rows if row["verdict"] == "good"]
    bad = [row for row in rows if row["verdict"] == "bad"]
    either = [row for row in rows if row["verdict"] not in ("good", "bad")]
    completed = [row for row in rows if _is_completed(row)]
    return Figures(
        files=len(rows),
        good=len(good),
        bad=len(bad),
        good_refused=[row for row in good if not _is_completed(row)],
        good_with_loss=[row for row in good if _is_completed(row) and _found(row, "WRONG")],
        bad_completed=[row for row in bad if _is_completed(row)],
        others_wrong=[row for row in either if _found(row, "WRONG")],
        differences=[row for row in completed if row["verdict"] != "bad" and _found(row, "LOOK")],
        made_by=Counter(row["job"]["result"]["ffmpeg_version"] for row in completed),
    )


def _is_completed(row: Row) -> bool:
    return bool(row["job"]["status"] == "completed")


def _found(row: Row, tier: str) -> list[str]:
    """Return what was found of a tier, but for frames that the judge could not count itself.

    It decodes all announced streams in one run, and ffmpeg begins none of them if one has no packet.
    """
    uncounted = f"frames 0 (ffmpeg decodes 0) -> {row.get('video_packets')}"
    return [
        words for found_tier, words in row["found"] if found_tier == tier and words != uncounted
    ]


def words_of(figures: Figures) -> str:
    """Return the lists and, last, the figures; pure."""
    lists = (
        ("good, but refused", figures.good_refused, "WRONG"),
        ("good, completed with a loss", figures.good_with_loss, "WRONG"),
        ("bad, but completed", figures.bad_completed, "WRONG"),
        ("neither, and wrong", figures.others_wrong, "WRONG"),
        ("completed with a difference", figures.differences, "LOOK"),
    )
    lines: list[str] = []
    for title, rows, tier in lists:
        lines += [f"{title}:"] if rows else []
        lines += [f"  {row['file']}: {'; '.join(_found(row, tier))}" for row in rows]
    made_by = ", ".join(f"{name}: {count}" for name, count in figures.made_by.most_common())
    lines += [
        f"outputs by ffmpeg: {made_by or 'none'}",
        (
            f"{figures.files} files, {figures.good} good, {figures.bad} bad: "
            f"good refused {len(figures.good_refused)}, "
            f"good completed with a loss {len(figures.good_with_loss)}, "
            f"bad completed {len(figures.bad_completed)}, "
            f"others wrong {len(figures.others_wrong)}, with a difference {len(figures.differences)}"
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
