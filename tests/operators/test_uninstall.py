"""`contrib/uninstall.sh` below a staged root: what it keeps, asks and removes."""

import os
import pty
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.operators.staging import (
    CONTRIB,
    UNINSTALL,
    Releases,
    done,
    mode,
    releases,
    run,
    skeleton,
    snapshot,
)

pytestmark = pytest.mark.e2e

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
    """Return the remaining files, without those of others."""
    others = ("etc/systemd/system/others.service", "usr/local/bin/others", "opt/distconv/server/")
    return sorted(
        name
        for name, (_, content) in snapshot(root).items()
        if content != "folder" and not name.startswith(others)
    )


def test_purge_asks_nothing_and_leaves_only_files_of_others(site: Path) -> None:
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
    assert mode(backup) == "0600"  # it contains keys
    with tarfile.open(backup) as kept_unit_backup:
        names = kept_unit_backup.getnames()
        file = kept_unit_backup.extractfile("etc/distconv/distconvd.toml")
        assert file is not None
        assert file.read() == b"port = 9000\n"
    assert "var/lib/distconv/state.json" in names
    assert "etc/distconv/credentials/engine.key" in names
    assert "etc/systemd/system/distconv-dispatch.service.d/override.conf" in names
    assert RESULT not in names


def restoring() -> list[str]:
    """Return the commands with which contrib/README.md restores a backup."""
    text = (CONTRIB / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(sudo systemctl stop 'distconv-\*'\n.*?)```", text, re.DOTALL)
    return str(block).splitlines()


def test_a_backup_is_restored_as_the_readme_says(
    releases: Releases, site: Path, tmp_path: Path
) -> None:
    state = site / "var/lib/distconv"
    (state / "state.json").write_text("old jobs")
    (state / "state.json.archive").mkdir()
    (state / "state.json.archive/2026-01.jsonl").write_text("finished long ago")
    before = snapshot(site)
    backup = tmp_path / "distconv.tar.gz"
    done(UNINSTALL, "--yes", "--backup", backup, "--root", site)
    done(releases.install, *releases.flags(site, "1.0", "--role", "all", "--socket"))
    (state / "state.json").write_text("no jobs")
    (state / "state.json.journal").write_text("of the fresh one")
    for line in restoring():
        if "systemctl" not in line:
            there = line.removeprefix("sudo ").replace("FILE", str(backup))
            there = re.sub(r"(?<= )/(?=var/| )", f"{site}/", there)
            subprocess.run(there, shell=True, check=True)
    fresh = site / "var/lib/distconv.fresh"
    assert (fresh / "state.json.journal").read_text() == "of the fresh one"
    for folder in (fresh, site / "var/lib/distconv-engine.fresh"):
        shutil.rmtree(folder)
    after = snapshot(site)
    # The fresh install's list of what it wrote stays: a key that is put back is the operator's own.
    list_of_ours = "opt/distconv/written"
    assert {**after, list_of_ours: None} == {**before, list_of_ours: None}


def test_help_has_the_readmes_commands_to_restore_a_backup() -> None:
    said = done(UNINSTALL, "--help")
    assert [line for line in restoring() if f"  {line}\n" not in said] == []


# A machine whose systemd is a function with a folder of units that run and units that are enabled.
PRETENDED = """\
live() { true; }
systemctl() {
  local word words=()
  for word in "$@"; do if [[ $word != --* ]]; then words+=("$word"); fi; done
  set -- "${words[@]}"
  local verb=$1 unit
  shift
  for unit in "$@"; do
    case $verb in
      is-enabled) [[ -e $DAEMONS/$unit.enabled ]] || return 1 ;;
      is-active) [[ -e $DAEMONS/$unit.active ]] || return 1 ;;
      enable) touch "$DAEMONS/$unit.enabled" ;;
      disable) rm -f "$DAEMONS/$unit.enabled" ;;
      start) touch "$DAEMONS/$unit.active" ;;
      stop) rm -f "$DAEMONS/$unit.active" ;;
    esac
  done
}
main "$@"
"""


@pytest.fixture
def daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs and is enabled on the machine that is pretended."""
    folder = tmp_path / "daemons"
    folder.mkdir()
    for name in ("distconv-dispatch.service.enabled", "distconv-dispatch.service.active"):
        (folder / name).touch()
    (folder / "distconv-dispatch.socket.enabled").touch()  # it does not run
    monkeypatch.setenv("DAEMONS", str(folder))
    return folder


@pytest.fixture
def pretending(tmp_path: Path) -> Path:
    """The script, with a systemd that pretends."""
    folder = tmp_path / "contrib"
    folder.mkdir()
    shutil.copy(CONTRIB / "common.sh", folder)
    text = UNINSTALL.read_text()
    assert text.endswith('\nmain "$@"\n')
    script = folder / "uninstall.sh"
    script.write_text(text.removesuffix('main "$@"\n') + PRETENDED)
    script.chmod(0o755)
    return script


def test_units_are_enabled_and_started_again_when_the_backup_fails(
    site: Path, daemons: Path, pretending: Path
) -> None:
    before, ran = snapshot(site), sorted(daemons.iterdir())
    words = ["--yes", "--backup", "/proc/no/such.tar.gz", "--root", site]
    ended = run(pretending, *words)
    assert ended.returncode == 1
    assert "everything is as it was before" in ended.stderr
    assert sorted(daemons.iterdir()) == ran
    assert snapshot(site) == before


def test_units_stay_stopped_when_removing_has_begun(
    site: Path, daemons: Path, pretending: Path, tmp_path: Path
) -> None:
    # Changes 1 to 5 stop and keep the copy.
    words = ["--yes", "--backup", tmp_path / "b.tar.gz", "--root", site]
    ended = run(pretending, *words, fault="fail:8")
    assert ended.returncode == 1
    assert "run it again to continue" in ended.stderr
    assert "as it was before" not in ended.stderr
    assert list(daemons.iterdir()) == []


def test_a_backup_whose_tar_fails_exits_1_and_leaves_no_part_of_it(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept/b.tar.gz.part").mkdir(parents=True)
    ended = run(UNINSTALL, "--yes", "--backup", tmp_path / "kept/b.tar.gz", "--root", site)
    assert ended.returncode == 1
    assert not (tmp_path / "kept/b.tar.gz").exists()


def test_an_earlier_backup_of_the_same_name_is_kept(site: Path, tmp_path: Path) -> None:
    backup = tmp_path / "b.tar.gz"
    backup.write_text("with what this one lacks")
    done(UNINSTALL, "--yes", "--backup", backup, "--root", site)
    assert (tmp_path / "b.tar.gz.~1~").read_text() == "with what this one lacks"
    assert tarfile.is_tarfile(backup)


def test_the_originals_unit_is_in_the_backup_and_only_purge_removes_it(
    site: Path, tmp_path: Path
) -> None:
    kept_unit_backup = site / "etc/systemd/system/distconv-dispatch.service.old"
    kept_unit_backup.write_text("the original's")
    backup = tmp_path / "b.tar.gz"
    said = done(UNINSTALL, "--yes", "--backup", backup, "--root", site)
    assert kept_unit_backup.read_text() == "the original's"
    assert f"{kept_unit_backup} stays" in said
    with tarfile.open(backup) as file:
        assert "etc/systemd/system/distconv-dispatch.service.old" in file.getnames()
    done(UNINSTALL, "--purge", "--root", site)
    assert not kept_unit_backup.exists()


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


def test_an_uninstall_that_is_killed_at_any_change_is_completed_by_the_next(
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


def test_without_a_terminal_it_names_the_flags_to_give(site: Path) -> None:
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
    "answers, remaining, backups",
    [("\n\n", [RESULT], 1), ("n\ny\n", [], 0), ("what?\nn\nno\n", [RESULT], 0)],
    ids=["the defaults", "nothing is kept", "an invalid answer"],
)
def test_on_a_terminal_it_asks_for_backup_and_results(
    site: Path, answers: str, remaining: list[str], backups: int
) -> None:
    shown = ask(site, answers)
    assert "Keep a copy of configuration and state in" in shown
    assert "Remove the finished results" in shown
    kept_unit_backup = [name for name in ours(site) if name.startswith("var/backups/")]
    assert len(kept_unit_backup) == backups
    assert [name for name in ours(site) if name not in kept_unit_backup] == remaining


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--everything"], 2, "unknown option --everything"),
        (["--purge", "--backup", "/tmp/b"], 2, "--purge makes no backup"),
        (["--root"], 2, "--root needs a value"),
        (["--root", "/dev/null/none", "--purge"], 1, "there is no such folder"),
    ],
)
def test_wrong_usage_is_reported_in_a_line(words: list[str], code: int, said: str) -> None:
    # A dry run: without the error this would uninstall from this machine.
    ended = run(UNINSTALL, "--dry-run", *words)
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
