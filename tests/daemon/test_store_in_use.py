"""Commands on a store that a running daemon has: refused, and the daemon is not disturbed.

All tests here only read: they share one daemon.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from tests.daemon.kit import KEY, Running, run, start
from tests.daemon.test_transfer import put_in

from distconv_plugins.stores.json_store.store import JsonStore
from distconvd.testing.store_suite import commit, put

pytestmark = pytest.mark.e2e

STATE = "dispatch_server_state.json"


@dataclass(frozen=True)
class InUse:
    """A running daemon, its folder and the one job in its store."""

    daemon: Running
    folder: Path
    job_id: str


@pytest.fixture(scope="module")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Generator[InUse]:
    folder = tmp_path_factory.mktemp("in_use")
    with start(folder) as daemon:
        yield InUse(daemon, folder, daemon.submit()["job_id"])


def test_a_second_daemon_is_refused_and_harms_nothing(in_use: InUse) -> None:
    done = run("--port", "0", cwd=in_use.folder)
    assert done.returncode == 1
    assert STATE in done.stderr
    assert "Traceback" not in done.stderr
    assert list(in_use.daemon.jobs()) == [in_use.job_id]


def test_check_names_the_process_that_has_the_store(in_use: InUse) -> None:
    busy = run("--port", "0", "check", cwd=in_use.folder)
    assert busy.returncode == 78
    assert f"is in use by process {in_use.daemon.process.pid}" in busy.stdout


def test_the_store_is_neither_exported_nor_imported_into(in_use: InUse, tmp_path: Path) -> None:
    trio.run(commit, lambda: JsonStore(tmp_path / "other.json"), [put("1_1", v=1)])
    farm = tmp_path / "farm.ndjson"
    farm.write_text(
        run("export", "--state-file", str(tmp_path / "other.json"), cwd=tmp_path).stdout
    )
    state = str(in_use.folder / STATE)
    for done in (
        run("export", "--state-file", state, cwd=tmp_path),
        put_in(farm, "--state-file", state),
    ):
        assert (done.returncode, done.stdout) == (1, "")
        assert f"in use by process {in_use.daemon.process.pid}" in done.stderr


def test_an_audit_of_the_store_is_refused_and_names_the_audit_of_the_daemon(
    in_use: InUse,
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in in_use.folder.glob("*.lock")}
    done = run("audit", "--state-file", STATE, cwd=in_use.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is in use by process {in_use.daemon.process.pid}" in done.stderr
    assert {p.name: p.stat().st_mtime_ns for p in in_use.folder.glob("*.lock")} == before


def test_the_running_daemon_can_be_audited_with_its_key(in_use: InUse) -> None:
    url = f"http://127.0.0.1:{in_use.daemon.port}"
    asked = run("audit", "--url", url, cwd=in_use.folder, DISTCONV_API_KEY=KEY)
    assert asked.stdout == f"{url}: 1 job, 0 engines: clean\n"
    assert asked.returncode == 0
    wrong = run("audit", "--url", url, cwd=in_use.folder, DISTCONV_API_KEY="wrong")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "401" in wrong.stderr
