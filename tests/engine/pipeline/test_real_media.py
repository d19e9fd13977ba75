"""Test real files of other people, where they are at hand, and the figures of tools/realmedia.py."""

import json
from pathlib import Path

import pytest
from tools.realmedia import (
    FOLDER_VARIABLE,
    Row,
    chosen_rows,
    default_folder,
    figures_of,
    main,
    read_manifest,
    run_piece,
    words_of,
)

SAMPLE_FILES = 60
PARTS = 2


def row(file: str, verdict: str, status: str, *found: tuple[str, str]) -> Row:
    result = {"ffmpeg_version": "9.0"} if status == "completed" else None
    job = {"status": status, "result": result}
    return {"file": file, "verdict": verdict, "codec": "h264", "job": job, "found": list(found)}


JUDGED = [
    row("whole.mp4", "good", "completed"),
    row("refused.mp4", "good", "failed_permanently", ("WRONG", "input: it is cut")),
    row("short.mp4", "good", "completed", ("WRONG", "frames 10 -> 9")),
    row("mute.mp4", "bad", "completed", ("WRONG", "CALLED A SUCCESS: cut")),
    row("cut.mp4", "bad", "failed_permanently"),
    row("odd.mp4", "either", "failed_permanently"),
    row("tagged.mp4", "either", "completed", ("LOOK", "audio 0 language deu -> None")),
]


def names(rows: list[Row]) -> list[str]:
    return [judged["file"] for judged in rows]


def test_a_file_counts_by_its_verdict_and_by_what_became_of_it() -> None:
    figures = figures_of(JUDGED)

    assert (figures.files, figures.good, figures.bad) == (7, 3, 2)
    assert names(figures.good_refused) == ["refused.mp4"]
    assert names(figures.good_with_loss) == ["short.mp4"]
    assert names(figures.bad_completed) == ["mute.mp4"]
    assert names(figures.differences) == ["tagged.mp4"]
    assert figures.made_by == {"9.0": 4}


@pytest.mark.parametrize(
    "judged, is_right", [(JUDGED[0], True), *((JUDGED[n], False) for n in (1, 2, 3))]
)
def test_only_a_refused_a_lossy_or_a_wrongly_completed_file_is_wrong(
    judged: Row, is_right: bool
) -> None:
    assert figures_of([judged, JUDGED[4], JUDGED[5], JUDGED[6]]).is_right is is_right


def test_frames_that_the_judge_could_not_count_are_no_loss_if_the_packets_are_there() -> None:
    found = ("WRONG", "frames 0 (ffmpeg decodes 0) -> 30")
    judged = row("empty-track.mp4", "good", "completed", found)

    assert figures_of([{**judged, "video_packets": 30}]).is_right
    assert not figures_of([{**judged, "video_packets": 31}]).is_right


def test_each_refusal_is_printed_with_its_sentence_and_the_figures_last() -> None:
    lines = words_of(figures_of(JUDGED)).splitlines()

    assert "  refused.mp4: input: it is cut" in lines
    assert lines[-1].startswith(
        "7 files, 3 good, 2 bad: good refused 1, good completed with a loss 1,"
    )


def test_a_sample_has_every_kind_before_it_has_a_second_of_one() -> None:
    rows = [
        {"file": f"{container}{number}", "verdict": "good", "container": container, "codec": "h264"}
        for container in ("a", "b", "c")
        for number in (1, 2, 3)
    ]

    assert names(chosen_rows(rows, sample=4)) == ["a1", "a2", "b1", "c1"]


def test_files_that_the_report_has_are_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "judge.py").write_text("raise SystemExit('it must not run')")
    (tmp_path / "manifest.json").write_text(json.dumps(JUDGED[:1]))
    report = tmp_path / "report.json"
    report.write_text(json.dumps(JUDGED[:1]))

    assert main([str(tmp_path), "--report", str(report)]) == 0
    assert "1 files, 1 good" in capsys.readouterr().out


def test_a_judge_that_fails_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("raise SystemExit('it has no httpx')")

    with pytest.raises(SystemExit, match="it has no httpx"):
        run_piece(tmp_path, JUDGED[:1], "")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_real_files_complete_whole_if_they_are_good_and_never_if_they_are_bad(part: int) -> None:
    folder = default_folder()
    if folder is None:
        pytest.skip(f"no real files: {FOLDER_VARIABLE} names no folder of them")
    rows = chosen_rows(read_manifest(folder), sample=SAMPLE_FILES)[part::PARTS]

    figures = figures_of(run_piece(folder, rows, ""))

    wrong = [figures.good_with_loss, figures.bad_completed, figures.others_wrong]
    assert ([*wrong, figures.good_refused]) == [[], [], [], []], words_of(figures)
