"""Write the page `docs/verdicts.md` from a real run, and compare every later run with it.

A row is a source, what was done to it, the engine's verdict and its words. `DISTCONV_UPDATE_DOCS=1`
makes `make verdicts` write what it sees; without it a run that sees another verdict fails. Words are compared
up to their first colon, where they are deterministic, and only with the ffmpeg that wrote the page.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from tests.once import locked_file

from distconv_engine.failures import JobFailure
from distconvd.model import CompleteReport

PAGE = Path(__file__).resolve().parents[3] / "docs" / "verdicts.md"
_DETERMINISTIC = {"nothing", "empty", "text", "zeros", "header-only"}
_DETERMINISTIC |= {"shrinks", "grows", "is replaced", "is written to", "breaks off", "claims more"}
"""In a file corrupted in the middle, which fault is found first depends on the encoder's bytes."""
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| `(\w+)` \| (.*) \|$")
_VERSION = re.compile(r"made with ffmpeg `([^`]+)`")
_HEAD = """\
# Verdicts: what the engine says of each bad and each odd source

Every row is a run of the real engine, made with ffmpeg `{version}` by `make verdicts` with
`DISTCONV_UPDATE_DOCS=1`; the numbers are those of the run. Tests compare the engine with this page and fail if a row is missing or its
verdict differs. `input` means that the job fails immediately and because of its source; `completed`
that the output was verified against the whole source. [verification.md](verification.md) describes
the checks, and what no check can see.
"""


class Verdict(NamedTuple):
    """The verdict on one source."""

    word: str
    """`completed`, or the failure's class."""
    words: str
    """The failure's message, or what was kept and dropped."""


Rows = dict[tuple[str, str, str], Verdict]


def failed(failure: JobFailure) -> Verdict:
    """Return the verdict of a failure."""
    return Verdict(str(failure.error_class), failure.message)


def succeeded(report: CompleteReport) -> Verdict:
    """Return the verdict of a success: what was kept, dropped and counted."""
    result = report.result
    assert result is not None
    parts = [f"{result.duration_s:.2f} s"]
    if result.video_frames:
        parts[0] += f", {result.video_frames} frames"
    parts.append(", ".join(result.kept or []))
    if result.dropped:
        parts.append("dropped: " + ", ".join(result.dropped))
    return Verdict("completed", "; ".join(parts))


class Verdicts:
    """The page's rows, by section, source and what was done to it."""

    def __init__(self, version: str, page: Path = PAGE) -> None:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        found = _VERSION.search(text)
        self.updates = bool(os.environ.get("DISTCONV_UPDATE_DOCS"))
        self._page = page
        self._version = version
        self._is_same_ffmpeg = found is not None and found[1] == version
        self._recorded = read_rows(text)
        self._seen: Rows = {}

    def expect_verdict(self, section: str, source: str, change: str, verdict: Verdict) -> None:
        """Compare the verdict of a run with the page, or keep it for the page."""
        words = _plain(verdict.words)
        row = (section, source, change)
        if self.updates:
            self._seen[row] = Verdict(verdict.word, words)
            return
        recorded = self._recorded.get(row)
        assert recorded is not None, (
            f"docs/verdicts.md has no row {row}: run `DISTCONV_UPDATE_DOCS=1 make verdicts`"
        )
        assert recorded.word == verdict.word, (
            f"docs/verdicts.md says {recorded} of {row}, not {verdict}"
        )
        if self._is_same_ffmpeg and change in _DETERMINISTIC:
            assert _gist(recorded.words) == _gist(words), f"docs/verdicts.md: {row}"

    def write(self, all_rows: list[tuple[str, str, str]]) -> None:
        """Write the page: its earlier rows, updated by this run, in the order of `all_rows`."""
        if not self._seen:
            return
        with locked_file(self._page):  # each worker of a parallel run has seen some of the rows
            self._write({**self._rows_of_page(), **self._seen}, all_rows)

    def _rows_of_page(self) -> Rows:
        return read_rows(self._page.read_text(encoding="utf-8")) if self._page.exists() else {}

    def _write(self, rows: Rows, all_rows: list[tuple[str, str, str]]) -> None:
        lines, section = [_HEAD.format(version=self._version)], ""
        for row in (row for row in all_rows if row in rows):
            if row[0] != section:
                section = row[0]
                lines += [f"\n## {section}\n", "| source | change | verdict | words |"]
                lines += ["|---|---|---|---|"]
            verdict = rows[row]
            lines.append(f"| {row[1]} | {row[2]} | `{verdict.word}` | {verdict.words} |")
        self._page.write_text("\n".join(lines).replace("\n\n\n", "\n\n") + "\n", encoding="utf-8")


def one_of_each_check(rows: Rows) -> set[tuple[str, str, str]]:
    """Return, of each section, the first row of each kind of fault that a check finds."""
    first: dict[tuple[str, str], tuple[str, str, str]] = {}
    for row, verdict in rows.items():
        first.setdefault((row[0], _gist(verdict.words)), row)
    return set(first.values())


def read_rows(text: str) -> Rows:
    """Return the rows of the page's text."""
    rows: Rows = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif found := _ROW.match(line):
            rows[section, found[1], found[2]] = Verdict(found[3], found[4])
    return rows


def _plain(words: str) -> str:
    """Return one line for a table, without what differs between machines."""
    return " ".join(re.sub(r"@ 0x[0-9a-f]+ ?", "", words).replace("|", "\\|").split())


def _gist(words: str) -> str:
    """Return the part of a message that names the kind of fault, without its numbers."""
    return re.sub(r"\d+", "N", words.partition(":")[0])
