"""Test `distconv submit --spool`: jobs are dropped as files, without a daemon."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from tests.client.fake import FakeDaemon

from distconv_client import spooling
from distconv_spool import Drop, Layout, Outcome, Owner, create, look

Run = Callable[..., Result]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    create(folder)
    return folder


def test_a_job_is_dropped_with_the_values_of_the_flags_and_nothing_is_sent(
    run: Run, daemon: FakeDaemon, spool: Path
) -> None:
    done = run(
        "submit", "http://h/a.mp4", "-c", "h265", "--priority", "high", "--spool", str(spool)
    )
    assert done.exit_code == 0, done.output
    (drop,) = (spool / "incoming").iterdir()
    fields = json.loads(drop.read_text())
    assert (fields["source_url"], fields["target_codec"]) == ("http://h/a.mp4", "h265")
    assert fields["priority"] == 1
    assert drop.name in done.stdout
    assert daemon.jobs == {}


def test_json_prints_a_line_with_the_name_of_each_drop(run: Run, spool: Path) -> None:
    done = run("submit", "--json", "http://h/a", "http://h/b", "-c", "av1", "--spool", str(spool))
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["source_url"] for line in printed] == ["http://h/a", "http://h/b"]
    assert {line["drop"] for line in printed} == {p.name for p in (spool / "incoming").iterdir()}


def test_a_folder_that_is_not_a_spool_is_refused_with_a_remedy(run: Run, tmp_path: Path) -> None:
    done = run("submit", "http://h/a", "-c", "av1", "--spool", str(tmp_path))
    assert done.exit_code == 2
    assert "--spool-dir" in done.stderr


def test_a_rejected_drop_is_reported_under_wait_and_exits_1(
    run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject_then_look(root: Path, drop: Drop, **_: object) -> Outcome:
        owner = Owner(Layout(spool), "test")
        claims = owner.claim(owner.waiting())[0]
        owner.reject((claim, b'{"detail": "no such codec"}') for claim in claims)
        owner.close()
        return look(root, drop)

    monkeypatch.setattr(spooling, "wait", reject_then_look)
    done = run("submit", "http://h/a", "-c", "av1", "--wait", "--spool", str(spool))
    assert done.exit_code == 1, done.output
    assert "no such codec" in done.stdout
