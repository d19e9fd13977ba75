"""Check that the page of verdicts is complete, and that a run that differs from it fails."""

from pathlib import Path

import pytest
from tests.engine.pipeline.rows import AS_IT_IS, ODD_BUT_VALID, UNDETECTABLE, UNSUPPORTED, all_rows
from tests.engine.pipeline.verdicts import (
    PAGE,
    Verdict,
    Verdicts,
    one_of_each_check,
    read_rows,
)

ROW = ("Corrupted files", "mkv", "zeros")
CUT = Verdict("input", "The source is cut: at byte 5.")


def test_the_page_has_every_row_and_no_other() -> None:
    assert list(read_rows(PAGE.read_text(encoding="utf-8"))) == all_rows()


def test_no_corrupted_source_is_reported_as_a_success() -> None:
    rows = read_rows(PAGE.read_text(encoding="utf-8"))
    corrupted = [
        row
        for row in rows
        if row[2] != AS_IT_IS and row[0] not in (ODD_BUT_VALID, UNSUPPORTED, UNDETECTABLE)
    ]
    assert len(corrupted) > 100
    assert {rows[row].word for row in corrupted} == {"input"}


def test_the_page_contains_no_path_of_the_machine_that_wrote_it() -> None:
    assert "file:/" not in PAGE.read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTCONV_UPDATE_DOCS", "1")
    writer = Verdicts("8.1", tmp_path / "page.md")
    writer.expect_verdict(*ROW, CUT)
    writer.write([ROW])
    monkeypatch.delenv("DISTCONV_UPDATE_DOCS")
    return tmp_path / "page.md"


def test_the_same_verdict_passes_whatever_its_numbers(page: Path) -> None:
    Verdicts("8.1", page).expect_verdict(*ROW, Verdict("input", "The source is cut: at byte 777."))


@pytest.mark.parametrize("verdict", [Verdict("completed", ""), Verdict("input", "It is empty.")])
def test_another_verdict_or_another_reason_fails(page: Path, verdict: Verdict) -> None:
    with pytest.raises(AssertionError, match=r"docs/verdicts\.md"):
        Verdicts("8.1", page).expect_verdict(*ROW, verdict)


def test_another_ffmpeg_may_have_other_words_but_no_other_verdict(page: Path) -> None:
    Verdicts("5.1", page).expect_verdict(*ROW, Verdict("input", "It is empty."))
    with pytest.raises(AssertionError, match="not"):
        Verdicts("5.1", page).expect_verdict(*ROW, Verdict("completed", ""))


def test_a_partial_run_keeps_the_other_rows_of_the_page(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTCONV_UPDATE_DOCS", "1")
    other = ("Corrupted files", "mkv", "empty")
    writer = Verdicts("8.1", page)
    writer.expect_verdict(*other, Verdict("input", "a | b"))
    writer.write([ROW, other])
    assert list(read_rows(page.read_text(encoding="utf-8"))) == [ROW, other]


def test_each_kind_of_fault_has_one_row_that_always_runs_through_the_whole_engine() -> None:
    rows = read_rows(PAGE.read_text(encoding="utf-8"))
    whole = one_of_each_check(rows)
    kinds = {(row[0], rows[row].words.partition(":")[0]) for row in whole}
    assert ("Corrupted files", "The source is cut") in kinds
    assert ("Corrupted files", "The source is empty") in kinds
    assert len([row for row in whole if row[0] == "Corrupted files"]) >= 6


def test_workers_that_write_the_page_at_the_same_time_lose_no_row(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTCONV_UPDATE_DOCS", "1")
    others = [("Corrupted files", "avi", "zeros"), ("Corrupted files", "flv", "zeros")]
    rows: list[tuple[str, str, str]] = [ROW, *others]
    workers = [Verdicts("8.1", page) for _ in rows[1:]]
    for worker, row in zip(workers, rows[1:], strict=True):
        worker.expect_verdict(*row, CUT)
    for worker in workers:
        worker.write(rows)
    assert list(read_rows(page.read_text(encoding="utf-8"))) == rows
