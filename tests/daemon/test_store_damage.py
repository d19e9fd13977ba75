"""A daemon on a damaged store serves what is whole, and names what is not until a person has read it."""

import shutil
from pathlib import Path

import msgspec
import pytest
import trio
from tests.api.test_metrics import scraped

from distconv_plugins.stores.json_store.files import JsonFiles
from distconv_plugins.stores.json_store.store import CheckpointBounds, JsonStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.disk import REAL_DISK
from distconvd.main import main
from distconvd.testing.daemon import open_daemon

JOBS = 20
NEVER = CheckpointBounds(small_bytes=0, journal_bytes_min=1 << 40)
JOB = {"source_url": "http://h/a.mp4", "target_codec": "h264", "job_size": 1.0}


async def killed_with_jobs(tmp_path: Path) -> tuple[Path, list[str]]:
    """Return the state file that a kill has left, with all jobs in the journal, and their ids."""
    first = tmp_path / "first"
    async with open_daemon(store=JsonStore(first / "state.json", bounds=NEVER)) as daemon:
        jobs = [(await daemon.client.post("/jobs/", JOB)).json()["job_id"] for _ in range(JOBS)]
        shutil.copytree(first, tmp_path / "left")
    return tmp_path / "left" / "state.json", jobs


def flip_a_bit_of(state: Path, job_id: str) -> None:
    """Flip one bit in the line of the journal that has created a job."""
    (journal,) = state.parent.glob("*.journal-*")
    text = bytearray(journal.read_bytes())
    text[text.index(b"http://h/a.mp4", text.index(job_id.encode()))] ^= 1
    journal.write_bytes(text)


def audit(state: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[object, str]:
    """Run the command, and return its exit code and what it prints."""
    capsys.readouterr()
    code: object = 0
    try:
        main(["audit", "--state-file", str(state), *flags])
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


async def test_a_flipped_bit_costs_one_job_which_log_and_readyz_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, jobs = await killed_with_jobs(tmp_path)
    flip_a_bit_of(state, jobs[4])
    for start in ("first", "second"):
        caplog.clear()
        async with open_daemon(store=JsonStore(state)) as daemon:
            served = [job["job_id"] for job in (await daemon.client.get("/jobs/")).json()]
            assert served == [*jobs[:4], *jobs[5:]], start
            assert f"older than what was acknowledged, or missing: jobs/{jobs[4]}" in caplog.text
            ready = await daemon.anonymous.get("/readyz")
            assert (ready.status, ready.json()["ready"]) == (200, True)
            warning = ready.json()["warnings"]["store"]
            assert warning.startswith("the store was damaged (1, of which 1 records are older than")
            assert jobs[4] not in warning
            assert (await scraped(daemon))("distconv_store_damage") == 1


async def test_a_sound_store_has_no_warnings(tmp_path: Path) -> None:
    state, _jobs = await killed_with_jobs(tmp_path)
    async with open_daemon(store=JsonStore(state)) as daemon:
        assert (await daemon.anonymous.get("/readyz")).json() == {"ready": True, "causes": {}}
        assert (await scraped(daemon))("distconv_store_damage") == 0


async def test_a_spool_store_warns_of_a_corrupt_record(tmp_path: Path) -> None:
    async with open_daemon(store=SpoolStore(tmp_path / "state")) as daemon:
        job_id = (await daemon.client.post("/jobs/", JOB)).json()["job_id"]
    (record,) = tmp_path.glob(f"state/jobs/*/{job_id}.json")
    record.write_bytes(record.read_bytes()[:40])
    async with open_daemon(store=SpoolStore(tmp_path / "state")) as daemon:
        warnings = (await daemon.anonymous.get("/readyz")).json()["warnings"]
    assert warnings["store"].startswith("the store was damaged (1, of which 1 records are older")


@pytest.fixture
def remains(tmp_path: Path) -> tuple[Path, list[str]]:
    return trio.run(killed_with_jobs, tmp_path)


def test_the_audit_names_the_job_before_and_after_a_start_until_a_repair(
    remains: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    state, jobs = remains
    flip_a_bit_of(state, jobs[4])
    named = f"job {jobs[4]}: a change was lost by damage; it is missing [damage-touched]."
    code, said = audit(state, capsys)
    assert (code, said.count(named)) == (1, 1)
    assert "store: a start would report: the journal" in said

    async def start() -> None:
        async with open_daemon(store=JsonStore(state)):
            pass

    trio.run(start)
    code, said = audit(state, capsys)
    assert (code, said.count(named)) == (1, 1)
    assert "acknowledged, or missing" in said
    code, said = audit(state, capsys, "--repair")
    assert (code, said.count(named)) == (0, 1)
    assert said.endswith("0 archived: clean\n")
    assert audit(state, capsys)[0] == 0


def test_a_repair_writes_what_is_whole(
    remains: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    state, jobs = remains
    flip_a_bit_of(state, jobs[4])
    code, said = audit(state, capsys, "--repair")
    assert code == 0, said
    assert list(msgspec.json.decode(state.read_bytes())["jobs"]) == [*jobs[:4], *jobs[5:]]
    assert [path for path in state.parent.iterdir() if ".journal-00000001.damaged-" in path.name]
    assert audit(state, capsys, "--repair")[0] == 0


def test_a_repair_of_a_running_daemon_or_by_url_is_refused(
    remains: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    state, _jobs = remains
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--repair", "--url", "http://127.0.0.1:1"])
    assert ended.value.code == 2
    assert "--repair needs the store itself, with its daemon stopped" in capsys.readouterr().err

    files = JsonFiles(REAL_DISK, state)
    files.open()
    assert audit(state, capsys, "--repair")[0] == 2
    files.close()
