"""`contrib/install.sh` below a staged root: install, upgrade, failure and kill at any change."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.operators.staging import (
    INSTALL,
    PYTHON,
    SAMPLES,
    Releases,
    done,
    mode,
    releases,
    run,
    skeleton,
    snapshot,
    wants,
)

pytestmark = pytest.mark.e2e

__all__ = ["releases"]

# ------------------------------------------------------------------------------------ one install


def test_a_dry_run_prints_each_step_and_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "nothing"
    said = done(INSTALL, "--dry-run", "--role", "all", "--root", root, "--python", PYTHON)
    assert not root.exists()
    assert len(re.findall(r"^ ?\d+\. ", said, re.MULTILINE)) == 12
    assert f"write {root}/etc/systemd/system/distconv-engine@.service" in said
    assert said.endswith("Nothing was changed.\n")


def test_a_dry_run_on_an_installed_tree_changes_nothing(releases: Releases, site: Path) -> None:
    words = releases.flags(site, "2.0", "--socket")
    before = snapshot(site)
    said = done(releases.install, "--dry-run", *words)
    assert "distconvd.toml stays" in said
    assert snapshot(site) == before


def test_a_second_install_of_the_same_release_changes_nothing(
    releases: Releases, site: Path
) -> None:
    before = snapshot(site)
    assert "dck_" not in done(releases.install, *releases.flags(site, "1.0"))
    assert snapshot(site) == before


def test_the_daemon_is_enabled_and_its_socket_on_request(
    releases: Releases, tmp_path: Path
) -> None:
    done(releases.install, *releases.flags(tmp_path, "1.0"))
    assert wants(tmp_path, "multi-user.target") == ["distconv-dispatch.service"]
    assert wants(tmp_path, "sockets.target") == []
    done(releases.install, *releases.flags(tmp_path, "1.0", "--socket"))
    assert wants(tmp_path, "sockets.target") == ["distconv-dispatch.socket"]


def test_roles_add_up_and_an_upgrade_keeps_them(releases: Releases, tmp_path: Path) -> None:
    done(releases.install, *releases.flags(tmp_path, "1.0"))
    done(releases.install, *releases.flags(tmp_path, "1.0", "--role", "engine"))
    both = ["distconv-dispatch.service", "distconv-engine@1.service"]
    assert wants(tmp_path, "multi-user.target") == both
    link = tmp_path / "etc/systemd/system/multi-user.target.wants/distconv-engine@1.service"
    assert link.readlink() == Path("/etc/systemd/system/distconv-engine@.service")
    assert "(dispatch engine;" in done(releases.install, *releases.flags(tmp_path, "2.0"))


def test_an_engine_machine_gets_the_servers_address_and_key_and_makes_no_keys(
    releases: Releases, tmp_path: Path
) -> None:
    root, key = tmp_path / "root", tmp_path / "engine.key"
    key.write_text("dck_from-the-dispatch-machine\n")
    more = ["--role", "engine", "--server", "https://dispatch:8443", "--engine-key", key]
    done(releases.install, *releases.flags(root, "1.0", *more))
    etc = root / "etc/distconv"
    assert 'server = "https://dispatch:8443"\n' in (etc / "engine.toml").read_text()
    assert (etc / "credentials/engine.key").read_text() == key.read_text()
    assert mode(etc / "credentials/engine.key") == "0600"
    assert not (etc / "keys.json").exists()
    assert wants(root, "multi-user.target") == ["distconv-engine@1.service"]


def test_the_admin_key_is_kept_in_a_file_on_request(releases: Releases, tmp_path: Path) -> None:
    root, file = tmp_path / "root", tmp_path / "admin.key"
    said = done(releases.install, *releases.flags(root, "1.0", "--admin-key-file", file))
    assert (file.read_text(), mode(file)) == ("dck_admin\n", "0600")
    assert "dck_" not in said


# A Python whose environments have a pip that fetches what nobody has locked.
FALSE_PYTHON = """\
#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip download "*)
    while [ "$1" != --dest ]; do shift; done
    mkdir -p "$2" && echo forged >"$2/trove_classifiers-1-py3-none-any.whl"
    ;;
esac
"""


def test_a_package_with_the_wrong_hash_is_rejected_and_nothing_is_left(tmp_path: Path) -> None:
    python, root = tmp_path / "python", tmp_path / "root"
    python.write_text(FALSE_PYTHON)
    python.chmod(0o755)
    ended = run(INSTALL, "--root", root, "--python", python)
    assert ended.returncode == 1
    assert "trove_classifiers-1-py3-none-any.whl is not the file that" in ended.stderr
    assert "everything is as it was before" in ended.stderr
    assert snapshot(root) == {"opt": ("0755", "folder")}


# ---------------------------------------------------------------------------------------- upgrades


@pytest.fixture
def site(releases: Releases, tmp_path: Path) -> Path:
    """A tree with version 1.0, its own settings, and jobs."""
    root = tmp_path / "site"
    done(releases.install, *releases.flags(root, "1.0"))
    (root / "etc/distconv/distconvd.toml").write_text("port = 9000\n")
    (root / "var/lib/distconv/state.json").write_text('{"jobs": {}, "engines": {}}')
    (root / "var/lib/distconv/distconv-media").mkdir()
    (root / "var/lib/distconv/distconv-media/film.mp4").write_text("a result")
    return root


def test_an_upgrade_keeps_configuration_state_and_the_previous_release(
    releases: Releases, site: Path
) -> None:
    first = (site / "opt/distconv/current").readlink()
    done(releases.install, *releases.flags(site, "2.0"))
    assert (site / "opt/distconv/current").readlink().name.startswith("2.0-")
    assert (site / "opt/distconv/previous").readlink() == first
    assert (site / "etc/distconv/distconvd.toml").read_text() == "port = 9000\n"
    state = site / "var/lib/distconv"
    copy = state / "before-upgrade"
    assert (copy / "state.json").read_text() == (state / "state.json").read_text()
    assert not (copy / "distconv-media").exists()
    done(releases.install, *releases.flags(site, "3.0"))
    kept = sorted(p.name.partition("-")[0] for p in (site / "opt/distconv/releases").iterdir())
    assert kept == ["2.0", "3.0"]


def test_rollback_makes_the_previous_release_current_again(releases: Releases, site: Path) -> None:
    flags = releases.flags(site, "2.0")
    done(releases.install, *flags)
    first, second = ((site / "opt/distconv" / n).readlink() for n in ("previous", "current"))
    done(releases.install, "--rollback", "--root", site, "--python", releases.python)
    assert ((site / "opt/distconv/current").readlink()) == first
    assert ((site / "opt/distconv/previous").readlink()) == second


def test_a_rollback_without_a_previous_release_is_refused(releases: Releases, site: Path) -> None:
    ended = run(releases.install, "--rollback", "--root", site, "--python", releases.python)
    assert (ended.returncode, "no previous release" in ended.stderr) == (1, True)


def test_new_defaults_are_written_next_to_a_changed_configuration(
    releases: Releases, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    flags = releases.flags(root, "1.0")
    # A release of old, whose defaults were others.
    old = tmp_path / "old"
    shutil.copytree(releases.release / "share", old / "share")
    (old / "share/distconv/distconvd.toml").write_text("# as it was\n")
    (root / "opt/distconv/current").symlink_to(old)
    etc = root / "etc/distconv"
    etc.mkdir(parents=True)
    (etc / "distconvd.toml").write_text("port = 9000\n")
    (etc / "engine.toml").write_text("slots = 2\n")
    said = done(releases.install, *flags)
    assert (etc / "distconvd.toml").read_text() == "port = 9000\n"
    assert (etc / "distconvd.toml.new").read_bytes() == (SAMPLES / "distconvd.toml").read_bytes()
    assert "distconvd.toml.new" in said
    assert not (etc / "engine.toml.new").exists()  # its default has not changed


def test_a_unit_that_was_changed_by_hand_is_kept_next_to_the_new_one(
    releases: Releases, site: Path
) -> None:
    unit = site / "etc/systemd/system/distconv-dispatch.service"
    unit.write_text("[Service]\n# mine\n")
    said = done(releases.install, *releases.flags(site, "2.0"))
    assert unit.read_bytes() == (SAMPLES / unit.name).read_bytes()
    assert unit.with_name(unit.name + ".old").read_text() == "[Service]\n# mine\n"
    assert "systemctl edit" in said


def test_the_originals_jobs_are_taken_over_and_its_file_stays(
    releases: Releases, tmp_path: Path
) -> None:
    theirs = tmp_path / "opt/distconv/server/state.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"jobs": {"1_0": {}}, "engines": {}}')
    done(releases.install, *releases.flags(tmp_path, "1.0"))
    ours = tmp_path / "var/lib/distconv/state.json"
    assert ours.read_text().strip() == theirs.read_text()
    done(releases.install, *releases.flags(tmp_path, "2.0"))
    assert theirs.exists()


def test_another_programs_command_of_the_same_name_stops_the_install_and_stays(
    releases: Releases, site: Path
) -> None:
    link = site / "usr/local/bin/distconv"
    link.unlink()
    link.write_text("somebody's own")
    before = snapshot(site)
    ended = run(releases.install, *releases.flags(site, "2.0"))
    assert ended.returncode == 1
    assert "is not ours; move it away" in ended.stderr
    assert snapshot(site) == before


def test_a_kept_copy_of_a_unit_is_never_overwritten(releases: Releases, tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/distconv-dispatch.service"
    unit.parent.mkdir(parents=True)
    for number, text in enumerate(["the original's", "mine", "mine", "another"], start=1):
        unit.write_text(text)
        done(releases.install, *releases.flags(tmp_path, f"{number}.0"))
    kept = sorted((path.name, path.read_text()) for path in unit.parent.glob("*.old*"))
    assert kept == [
        ("distconv-dispatch.service.old", "the original's"),
        ("distconv-dispatch.service.old.2", "mine"),
        ("distconv-dispatch.service.old.3", "another"),
    ]


# ----------------------------------------------------------- what is asked for of what is there


def key_in(folder: Path, text: str) -> Path:
    path = folder / "given.key"
    path.write_text(text + "\n")
    return path


def test_an_engine_next_to_a_daemon_gets_the_server_and_key_that_it_is_given(
    releases: Releases, tmp_path: Path
) -> None:
    root, key = tmp_path / "root", key_in(tmp_path, "dck_of-another")
    done(releases.install, *releases.flags(root, "1.0"))
    etc = root / "etc/distconv"
    made = (etc / "credentials/engine.key").read_text()
    for server in ("http://one:8080", "https://two:8443"):  # and once more, as it is ours still
        more = ["--role", "engine", "--server", server, "--engine-key", key]
        ended = run(releases.install, *releases.flags(root, "1.0", *more))
        assert (ended.returncode, "WARNING" in ended.stderr) == (0, False), ended.stderr
        assert f'server = "{server}"\n' in (etc / "engine.toml").read_text()
    assert (etc / "credentials/engine.key").read_text() == key.read_text()
    assert mode(etc / "credentials/engine.key") == "0600"
    # Engines elsewhere may have to be given this one.
    assert (etc / "credentials/engine.key.old").read_text() == made
    key_in(tmp_path, "dck_the-next")
    done(releases.install, *releases.flags(root, "2.0", "--engine-key", key))
    assert (etc / "credentials/engine.key").read_text() == "dck_the-next\n"
    assert not (etc / "engine.toml.new").exists()  # nobody has changed it


def test_a_configuration_changed_by_hand_stays_and_a_warning_says_what_to_do(
    releases: Releases, tmp_path: Path
) -> None:
    root, key = tmp_path / "root", key_in(tmp_path, "dck_asked-for")
    done(releases.install, *releases.flags(root, "1.0", "--role", "all"))
    etc = root / "etc/distconv"
    (etc / "engine.toml").write_text('server = "http://mine:8080"  # by hand\n')
    (etc / "engine.env").write_text("DISTCONV_SERVER=http://env:8080\n")
    (etc / "credentials/engine.key").write_text("dck_by-hand\n")
    words = ["--server", "http://asked:8080", "--engine-key", key, "--admin-key-file"]
    before = snapshot(root)
    flags = releases.flags(root, "1.0", *words, tmp_path / "admin.key")
    ended = run(releases.install, *flags)
    assert ended.returncode == 0
    assert snapshot(root) == before
    variables, file, admin, own = [x for x in ended.stderr.splitlines() if "WARNING" in x]
    assert f"{etc}/engine.env stays" in variables
    assert "DISTCONV_SERVER is http://env:8080, but --server is http://asked:8080" in variables
    assert f"{etc}/engine.toml was changed by hand" in file
    assert "server is http://mine:8080, but --server is http://asked:8080" in file
    assert "systemctl restart" in file
    assert f"{etc}/credentials/engine.key was changed by hand" in own
    assert f"install -m 0600 {key} {etc}/credentials/engine.key" in own
    assert "dck_" not in ended.stdout + ended.stderr
    assert "distconvd keys add" in admin


def test_a_value_that_is_set_already_gives_no_warning(releases: Releases, tmp_path: Path) -> None:
    root, key = tmp_path / "root", key_in(tmp_path, "dck_by-hand")
    done(releases.install, *releases.flags(root, "1.0", "--role", "all"))
    (root / "etc/distconv/engine.toml").write_text("server = 'http://mine:8080'\n")
    (root / "etc/distconv/credentials/engine.key").write_text("dck_by-hand\n")
    before = snapshot(root)
    words = ["--server", "http://mine:8080", "--engine-key", key]
    ended = run(releases.install, *releases.flags(root, "1.0", *words))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert snapshot(root) == before


# ------------------------------------------------------------------------------ failures and kills


def fail_each(releases: Releases, flags: list[object], root: Path, kind: str) -> int:
    """Let each change fail in turn (or kill the script at it) until one run completes."""
    before = snapshot(root)
    for number in range(1, 200):
        ended = run(releases.install, *flags, fault=f"{kind}:{number}")
        if ended.returncode == 0:
            return number - 1
        if kind == "fail":
            assert ended.returncode == 1
            assert f"change {number} fails for a test" in ended.stderr
            if "Remove old releases" in ended.stdout:
                continue  # it is installed, and what is left over is no reason to take that back
            assert "rollback command failed" not in ended.stderr
            assert snapshot(root) == before, number
    raise AssertionError("it never completes")


@pytest.mark.slow
def test_an_install_that_fails_at_any_change_leaves_nothing(
    releases: Releases, tmp_path: Path
) -> None:
    root = skeleton(tmp_path / "root")
    assert fail_each(releases, releases.flags(root, "1.0"), root, "fail") > 20


def test_an_upgrade_that_fails_at_any_change_leaves_all_as_it_was(
    releases: Releases, site: Path
) -> None:
    unit = site / "etc/systemd/system/distconv-dispatch.service"
    unit.write_text("[Service]\n# mine\n")
    assert fail_each(releases, releases.flags(site, "2.0"), site, "fail") > 8


def test_a_failure_leaves_other_files_of_configuration_and_units(
    releases: Releases, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    key = key_in(tmp_path, "dck_of-another")
    first = releases.flags(root, "1.0", "--role", "all")
    done(releases.install, *first)
    old = root / "opt/distconv/releases/old"
    shutil.copytree(releases.release / "share", old / "share")
    (old / "share/distconv/distconvd.toml").write_text("# as it was\n")
    (root / "opt/distconv/current").unlink()
    (root / "opt/distconv/current").symlink_to("releases/old")
    (root / "etc/distconv/distconvd.toml").write_text("port = 9000\n")
    (root / "etc/distconv/distconvd.toml.new").write_text("from before")
    unit = root / "etc/systemd/system/distconv-dispatch.service"
    unit.write_text("mine")
    unit.with_name(unit.name + ".old").write_text("the original's")
    words = ["--server", "http://x:1", "--engine-key", key]
    assert fail_each(releases, releases.flags(root, "2.0", *words), root, "fail") > 10


def test_whatever_fails_exits_1(releases: Releases, site: Path) -> None:
    flags = releases.flags(site, "2.0")
    release = next((site / "opt/distconv/releases").glob("2.0-*"))
    release.unlink()
    shutil.copytree(releases.release, release)
    (release / "bin/distconvd").write_text("#!/bin/sh\nexit 78\n")
    before = snapshot(site)
    ended = run(releases.install, *flags)
    assert ended.returncode == 1
    assert "everything is as it was before" in ended.stderr
    assert snapshot(site) == before


def test_an_install_that_is_killed_at_any_change_is_completed_by_the_next(
    releases: Releases, tmp_path: Path
) -> None:
    root, flags = tmp_path, releases.flags(tmp_path, "1.0")
    # Each run goes on from where the one before was killed, and is killed a change later.
    number = fail_each(releases, flags, root, "kill")
    assert number > 0
    done(releases.install, *flags)
    assert [name for name in snapshot(root) if name.endswith((".part", ".new"))] == []
    assert mode(root / "etc/distconv/keys.json") == "0640"
    assert (root / "etc/distconv/credentials/engine.key").read_text().startswith("dck_")


def test_an_upgrade_that_is_killed_loses_no_state(releases: Releases, site: Path) -> None:
    state = site / "var/lib/distconv/state.json"
    flags = releases.flags(site, "2.0")
    fail_each(releases, flags, site, "kill")
    assert state.read_text() == '{"jobs": {}, "engines": {}}'
    assert (site / "etc/distconv/distconvd.toml").read_text() == "port = 9000\n"
    assert (site / "opt/distconv/current").readlink().name.startswith("2.0-")


def test_of_two_concurrent_installs_one_is_refused(releases: Releases, site: Path) -> None:
    with subprocess.Popen(
        ["flock", site, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as lock_owner:
        assert lock_owner.stdin is not None
        assert lock_owner.stdout is not None
        lock_owner.stdin.write(b"held\n")
        lock_owner.stdin.flush()
        assert lock_owner.stdout.readline() == b"held\n"
        ended = run(releases.install, *releases.flags(site, "2.0"))
        lock_owner.stdin.close()
    assert ended.returncode == 1
    assert "another install or uninstall is running" in ended.stderr


# ------------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    "words, said",
    [
        (["--rolle", "all"], "unknown option --rolle"),
        (["--role"], "--role needs a value"),
        (["--role", "both"], "choose dispatch, engine or all"),
        (["--root", "image"], "expected an absolute path"),
        (["--root", "/"], "leave it out"),
        (["--root", ""], "--root is empty"),
        (["--server", 'http://x"\nport = 1'], "expected a URL such as"),
        (["--engine-key", "/dev/null/none"], "expected a file with a key"),
        (["--wheel", "/dev/null/none.whl"], "expected a readable .whl file"),
        (["--wheelhouse", "/dev/null/none"], "no such folder"),
        (["--rollback", "--server", "http://dispatch:8080"], "--rollback changes no configuration"),
    ],
)
def test_wrong_usage_is_reported_in_a_line_and_exits_2(words: list[str], said: str) -> None:
    # A dry run: without the error this would install on this machine.
    ended = run(INSTALL, "--dry-run", *words)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "see --help" in ended.stderr


def test_a_python_that_cannot_make_environments_is_refused(tmp_path: Path) -> None:
    ended = run(INSTALL, "--root", tmp_path / "root", "--python", "/bin/false")
    assert (ended.returncode, "not Python 3.11 or newer" in ended.stderr) == (1, True)
    assert not (tmp_path / "root").exists()


def test_help_teaches_by_example_and_names_every_option() -> None:
    said = done(INSTALL, "--help")
    assert "examples:" in said
    taken = re.findall(r"^ +(--[\w-]+)(?: [A-Z]+)?  ", said, re.MULTILINE)
    source = INSTALL.read_text()
    assert len(taken) == 11
    assert [
        option for option in taken if f"{option})" not in source and f"{option} |" not in source
    ] == []
