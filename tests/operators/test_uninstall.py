"""`contrib/uninstall.sh` below a staged root: what it keeps, what it asks, and what it leaves."""

import os
import pty
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.operators.staging import (
    UNINSTALL,
    Releases,
    done,
    mode,
    releases,
    run,
    skeleton,
    snapshot,
)

__all__ = ["releases"]

RESULT = "var/lib/distconv/distconv-media/film.mp4"


@pytest.fixture
def site(releases: Releases, tmp_path: Path) -> Path:
    """A tree with daemon and engine, jobs, a result, a drop-in, and files of others."""
    root = skeleton(tmp_path / "site")
    (root / "usr/local/bin/others").write_text("")
    (root / "opt/distconv/server").mkdir(parents=True)
    (root / "opt/distconv/server/state.json").write_text("the original's")
    (root / "etc/systemd/system/others.service").write_text("")
    done(releases.install, *releases.flags(root, "1.0", "--role", "all", "--socket"))
    (root / RESULT).parent.mkdir()
    (root / RESULT).write_text("a result")
    (root / "var/lib/distconv-engine/1").mkdir()
    drop_in = root / "etc/systemd/system/distconv-dispatch.service.d/override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\n")
    return root


def ours(root: Path) -> list[str]:
    """Return the files that are left and not of others."""
    others = ("etc/systemd/system/others.service", "usr/local/bin/others", "opt/distconv/server/")
    return sorted(
        name
        for name, (_, content) in snapshot(root).items()
        if content != "folder" and not name.startswith(others)
    )


def test_purge_asks_nothing_and_leaves_nothing_but_what_is_of_others(site: Path) -> None:
    said = done(UNINSTALL, "--purge", "--root", site)
    assert ours(site) == []
    assert not (site / "etc/distconv").exists()
    assert not (site / "var/lib/distconv").exists()
    assert not (site / "var/lib/distconv-engine").exists()
    assert (site / "opt/distconv/server/state.json").exists()
    assert "DistConv is removed" in said


def test_yes_keeps_a_backup_and_the_results_and_removes_the_rest(
    site: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "kept" / "distconv.tar.gz"
    (site / "etc/distconv/distconvd.toml").write_text("port = 9000\n")
    said = done(UNINSTALL, "--yes", "--backup", backup, "--root", site)
    assert ours(site) == [RESULT]
    assert str(backup) in said
    assert mode(backup) == "0600"  # it holds keys
    with tarfile.open(backup) as kept:
        names = kept.getnames()
        file = kept.extractfile("etc/distconv/distconvd.toml")
        assert file is not None
        assert file.read() == b"port = 9000\n"
    assert "var/lib/distconv/state.json" in names
    assert "etc/distconv/credentials/engine.key" in names
    assert "etc/systemd/system/distconv-dispatch.service.d/override.conf" in names
    assert RESULT not in names


def test_what_was_backed_up_can_be_put_back(releases: Releases, site: Path, tmp_path: Path) -> None:
    before = snapshot(site)
    backup = tmp_path / "distconv.tar.gz"
    done(UNINSTALL, "--yes", "--backup", backup, "--root", site)
    done(releases.install, *releases.flags(site, "1.0", "--role", "all", "--socket"))
    subprocess.run(["tar", "-C", site, "-xzf", backup], check=True)
    assert snapshot(site) == before


def test_a_dry_run_changes_nothing(site: Path) -> None:
    before = snapshot(site)
    assert done(UNINSTALL, "--dry-run", "--purge", "--root", site).endswith(
        "Nothing was changed.\n"
    )
    done(UNINSTALL, "--dry-run", "--root", site)
    assert snapshot(site) == before


def test_a_second_uninstall_finds_nothing_to_do(site: Path) -> None:
    done(UNINSTALL, "--purge", "--root", site)
    before = snapshot(site)
    done(UNINSTALL, "--purge", "--root", site)
    assert snapshot(site) == before


def test_one_that_was_killed_at_any_change_is_finished_by_the_next(
    site: Path, tmp_path: Path
) -> None:
    words = ["--yes", "--backup", tmp_path / "b.tar.gz", "--root", site]
    for number in range(1, 60):
        if run(UNINSTALL, *words, fault=f"kill:{number}").returncode == 0:
            break
    done(UNINSTALL, *words)
    assert ours(site) == [RESULT]


def test_a_backup_that_fails_removes_nothing(site: Path) -> None:
    before = snapshot(site)
    ended = run(UNINSTALL, "--yes", "--backup", "/proc/no/such.tar.gz", "--root", site)
    assert ended.returncode == 1
    assert snapshot(site) == before


def test_without_a_terminal_it_says_what_to_give(site: Path) -> None:
    before = snapshot(site)
    ended = run(UNINSTALL, "--root", site)
    assert (ended.returncode, "give --yes or --purge" in ended.stderr) == (1, True)
    assert snapshot(site) == before


def ask(site: Path, answers: str) -> str:
    """Run it on a terminal and answer; return what the terminal showed."""
    ours_end, its_end = pty.openpty()
    with subprocess.Popen(
        [UNINSTALL, "--root", site], stdin=its_end, stdout=its_end, stderr=its_end
    ) as process:
        os.close(its_end)
        os.write(ours_end, answers.encode())
        shown = b""
        try:
            while piece := os.read(ours_end, 4096):
                shown += piece
        except OSError:
            pass  # on Linux that is the end of a terminal
        assert process.wait(60) == 0
    os.close(ours_end)
    return shown.decode()


@pytest.mark.parametrize(
    "answers, left, backups",
    [("\n\n", [RESULT], 1), ("n\ny\n", [], 0), ("what?\nn\nno\n", [RESULT], 0)],
    ids=["the defaults", "nothing is kept", "an answer that is none"],
)
def test_on_a_terminal_it_asks_for_backup_and_results(
    site: Path, answers: str, left: list[str], backups: int
) -> None:
    shown = ask(site, answers)
    assert "Keep a copy of configuration and state in" in shown
    assert "Remove the finished results" in shown
    kept = [name for name in ours(site) if name.startswith("var/backups/")]
    assert len(kept) == backups
    assert [name for name in ours(site) if name not in kept] == left


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--everything"], 2, "what is --everything?"),
        (["--purge", "--backup", "/tmp/b"], 2, "--purge leaves nothing"),
        (["--root"], 2, "--root needs a value"),
        (["--root", "/dev/null/none", "--purge"], 1, "there is no such folder"),
    ],
)
def test_wrong_usage_is_told_in_a_line(words: list[str], code: int, said: str) -> None:
    # Dry, for one that is not refused would be an uninstall on this machine.
    ended = run(UNINSTALL, "--dry-run", *words)
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
