"""The json store's files have the documented layout, are written in time, and others' are read.

Power cuts and faults are in `test_power_cut.py`, damaged files in `test_json_damage.py`.
"""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from distconv_plugins.stores.json_store.files import JsonFiles
from distconv_plugins.stores.json_store.state_file import read_state, write_state
from distconv_plugins.stores.json_store.store import CheckpointBounds, JsonStore
from distconvd.disk import REAL_DISK, DiskFile, OpenMode, RealDisk
from distconvd.errors import StoreError, StoreLocked, StoreTooNew
from distconvd.store import TABLES, Change
from distconvd.testing.faultdisk import FaultDisk, survivals
from distconvd.testing.store_suite import ODD_KEYS, commit, contents, delete, put, record

ORIGINAL = """{
    "engines": {
        "engine-1": {
            "benchmark_time": 100.0,
            "engine_id": "engine-1",
            "status": "idle",
            "supported_codecs": [
                "h264",
                "vp9"
            ]
        }
    },
    "jobs": {
        "1754000000000000_0": {
            "assigned_engine": null,
            "job_id": "1754000000000000_0",
            "job_size": 50.5,
            "max_retries": 3,
            "output_url": null,
            "retries": 0,
            "source_url": "http://example.com/v\\u00efdeo.mp4",
            "status": "pending",
            "target_codec": "h264"
        }
    }
}"""
"""As version 1.0.0 of the original writes it."""

NEVER = CheckpointBounds(small_bytes=0, journal_bytes_min=1 << 40)
IMMEDIATELY = CheckpointBounds(quiet_s=0.0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


class WatchedDisk(RealDisk):
    """A real disk that signals when the state file is replaced, and can delay its writing."""

    def __init__(self) -> None:
        self.installed = threading.Semaphore(0)
        self.writing = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.fail_new: OSError | None = None

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        if path.suffix == ".new" and mode == "create":
            if self.fail_new is not None:
                error, self.fail_new = self.fail_new, None
                raise error
            self.writing.set()
            self.go_on.wait(10)
        return super().open(path, mode)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.name == "state.json":
            self.installed.release()

    async def wait_installed(self) -> None:
        assert await trio.to_thread.run_sync(lambda: self.installed.acquire(timeout=10))


def jobs_in(path: Path) -> list[str]:
    return list(json.loads(path.read_bytes())["jobs"])


# -------------------------------------------------------------------------------- what it looks like


async def test_the_state_file_is_readable_json_with_a_record_a_line(state: Path) -> None:
    await commit(lambda: JsonStore(state), [put("b", n=1), put("a", n=2), put("e", "engines", n=3)])
    assert state.read_text() == (
        "{\n"
        '  "jobs": {\n'
        '    "b": {"n":1},\n'
        '    "a": {"n":2}\n'
        "  },\n"
        '  "engines": {\n'
        '    "e": {"n":3}\n'
        "  },\n"
        '  "attempts": {},\n'
        '  "meta": {},\n'
        '  "distconv": {"format":1,"journal":1,"batches":1}\n'
        "}\n"
    )
    assert list(json.loads(state.read_bytes())) == [*TABLES, "distconv"]


async def test_the_journal_is_json_lines_that_grep_finds(state: Path) -> None:
    store = JsonStore(state, bounds=NEVER)
    await store.load()
    await store.commit([put("a", n=1), delete("gone")])
    journal = state.with_name("state.json.journal-00000001")
    header, batch = map(json.loads, journal.read_text().splitlines())
    assert (header["journal"], header["format"], header["after"]) == (1, 1, [0, 0])
    assert (batch["batch"], batch["changes"]) == (
        1,
        [["jobs", "a", {"n": 1}], ["jobs", "gone", None]],
    )
    await store.aclose()


async def test_files_and_directories_are_for_their_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "new" / "er" / "state.json"
    await commit(lambda: JsonStore(state), [put("a", n=1)])
    assert state.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state.parent.iterdir()} == {0o600}


async def test_a_link_to_the_state_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "state.json"
    link.symlink_to(tmp_path / "elsewhere" / "real.json")
    await commit(lambda: JsonStore(link), [put("a", n=1)])
    assert link.is_symlink()
    assert jobs_in(tmp_path / "elsewhere" / "real.json") == ["a"]


def test_our_own_layout_and_any_other_read_the_same(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    tables = {table: {key: record(k=key, t=table) for key in ODD_KEYS} for table in TABLES}
    write_state(REAL_DISK, ours, tables, (3, 4))  # type: ignore[arg-type]
    other.write_text(json.dumps(json.loads(ours.read_bytes()), indent=3))
    first, second = read_state(REAL_DISK, ours), read_state(REAL_DISK, other)
    assert first.tables == tables
    assert first.position == second.position == (3, 4)
    for table in TABLES:
        assert list(first.tables[table]) == list(second.tables[table]) == ODD_KEYS
        for key in ODD_KEYS:
            assert json.loads(second.tables[table][key]) == {"k": key, "t": table}


# ---------------------------------------------------------------------------------- checkpoints


async def test_a_small_state_file_follows_the_last_change(state: Path) -> None:
    disk = WatchedDisk()
    store = JsonStore(state, disk=disk, bounds=IMMEDIATELY)
    await store.load()
    await disk.wait_installed()
    for name in ("a", "b"):
        await store.commit([put(name, n=1)])
        await disk.wait_installed()
    assert jobs_in(state) == ["a", "b"]
    await store.aclose()


def test_by_default_the_state_file_follows_within_a_second() -> None:
    assert CheckpointBounds().quiet_s < 1.0


async def test_a_state_file_that_is_up_to_date_is_not_written_again(state: Path) -> None:
    disk = WatchedDisk()
    store = JsonStore(state, disk=disk, bounds=IMMEDIATELY)
    await store.load()
    await store.commit([put("a", n=1)])
    await disk.wait_installed()
    await disk.wait_installed()
    inode = state.stat().st_ino
    await store.commit([])
    await store.aclose()
    assert state.stat().st_ino == inode


async def test_a_big_state_file_waits_until_the_journal_outgrows_it(state: Path) -> None:
    disk = WatchedDisk()
    bounds = CheckpointBounds(small_bytes=0, journal_bytes_min=3000, ratio=1.0)
    store = JsonStore(state, disk=disk, bounds=bounds)
    await store.load()
    await disk.wait_installed()
    for n in range(4):
        assert jobs_in(state) == []
        await store.commit([put(f"job-{n}", text="x" * 900)])
    await disk.wait_installed()
    assert len(jobs_in(state)) == 4
    await store.aclose()


async def test_closing_the_store_writes_a_checkpoint(state: Path) -> None:
    store = JsonStore(state, bounds=NEVER)
    await store.load()
    await store.commit([put("a", n=1)])
    assert jobs_in(state) == []
    await store.aclose()
    assert jobs_in(state) == ["a"]


async def test_commits_go_on_while_a_state_file_is_written(state: Path) -> None:
    disk = WatchedDisk()
    store = JsonStore(state, disk=disk, bounds=IMMEDIATELY)
    await store.load()
    disk.writing.clear()
    disk.go_on.clear()
    await store.commit([put("a", n=1)])
    await trio.to_thread.run_sync(disk.writing.wait, 10)
    with trio.fail_after(5):
        await store.commit([put("b", n=1)])
    disk.go_on.set()
    await store.aclose()
    assert jobs_in(state) == ["a", "b"]


async def test_a_failed_checkpoint_is_retried(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = WatchedDisk()
    bounds = IMMEDIATELY._replace(retry_s=0.0)
    store = JsonStore(state, disk=disk, bounds=bounds)
    await store.load()
    await disk.wait_installed()
    disk.fail_new = OSError(errno.ENOSPC, "No space left on device")
    await store.commit([put("a", n=1)])
    await disk.wait_installed()
    assert jobs_in(state) == ["a"]
    assert "the state file is not up to date" in caplog.text
    await store.aclose()


def test_a_checkpoint_is_durable_when_it_returns() -> None:
    disk = FaultDisk()
    path = Path("/state.json")
    files = JsonFiles(disk, path)
    files.open()
    files.commit([put("a", n=1)])
    files.checkpoint()
    nothing = disk.after_power_cut(survivals(0, 0)[0])
    assert list(json.loads(nothing.contents(path))["jobs"]) == ["a"]


async def test_the_number_of_files_next_to_the_state_file_is_bounded(state: Path) -> None:
    for n in range(12):
        await commit(lambda: JsonStore(state), [put(f"job-{n}", n=n)])
        await contents(lambda: JsonStore(state))
    names = sorted(path.name.removeprefix("state.json") for path in state.parent.iterdir())
    assert len([name for name in names if name.startswith(".journal-")]) <= 3
    assert {name for name in names if "journal" not in name} == {"", ".lock", ".previous"}


# ---------------------------------------------------------------------------------- others' files


async def test_a_state_file_of_the_original_loads(state: Path) -> None:
    state.write_text(ORIGINAL)
    store = JsonStore(state)
    snapshot = await store.load()
    assert {key: json.loads(value) for key, value in snapshot.jobs.items()} == json.loads(ORIGINAL)[
        "jobs"
    ]
    assert json.loads(snapshot.engines["engine-1"])["supported_codecs"] == ["h264", "vp9"]
    assert b"\n" not in snapshot.engines["engine-1"]
    await store.commit([put("new", n=1)])
    await store.aclose()
    assert jobs_in(state) == ["1754000000000000_0", "new"]


async def test_the_originals_state_file_is_kept_as_the_previous_one(state: Path) -> None:
    state.write_text(ORIGINAL)
    store = JsonStore(state, bounds=NEVER)
    await store.load()
    assert state.with_name("state.json.previous").read_text() == ORIGINAL
    await store.aclose()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"jobs": {}}',
        '{"engines": {}}',
        '{"jobs": null, "engines": null}',
        '\ufeff{"jobs": {}, "engines": {}}',
        '{"jobs": {}, "engines": {}, "something": [1, 2]}\n\n',
    ],
)
async def test_a_state_file_that_lacks_parts_starts_without_them(state: Path, text: str) -> None:
    state.write_text(text)
    assert await contents(lambda: JsonStore(state)) == ({}, {}, {}, {})
    assert not list(state.parent.glob("*corrupt*"))


async def test_a_state_file_with_only_jobs_loads_them(state: Path) -> None:
    state.write_text('{"jobs": {"a": {"n": 1}}}')
    assert (await contents(lambda: JsonStore(state))).jobs == {"a": b'{"n": 1}'}


async def test_a_state_file_that_a_person_has_edited_loads(state: Path) -> None:
    await commit(lambda: JsonStore(state), [put("a", n=1), put("b", n=1)])
    document = json.loads(state.read_bytes())
    document["jobs"]["a"]["n"] = 2
    state.write_text(json.dumps(document, indent=8, ensure_ascii=False))
    assert (await contents(lambda: JsonStore(state))).jobs == {"a": record(n=2), "b": record(n=1)}


async def test_records_that_are_not_objects_are_left_out_and_the_file_kept(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = '{"jobs": {"good": {"n":1}, "bad": 7, "worse": [1], "none": null}}'
    state.write_text(text)
    assert (await contents(lambda: JsonStore(state))).jobs == {"good": b'{"n":1}'}
    (kept,) = state.parent.glob("state.json.partial-*")
    assert kept.read_text() == text
    assert "jobs/bad, jobs/worse, jobs/none" in caplog.text


# -------------------------------------------------------------------------------------- refusals


async def test_a_newer_format_is_refused_and_left_alone(state: Path) -> None:
    text = '{"jobs": "elsewhere", "distconv": {"format": 2, "index": []}}'
    state.write_text(text)
    with pytest.raises(StoreTooNew, match=r"state\.json has format 2, .* up to 1; start the newer"):
        await JsonStore(state).load()
    assert state.read_text() == text
    assert {path.name for path in state.parent.iterdir()} == {"state.json", "state.json.lock"}


async def test_a_newer_format_in_our_layout_is_refused(state: Path) -> None:
    await commit(lambda: JsonStore(state), [put("a", n=1)])
    state.write_text(state.read_text().replace('"format":1', '"format":9'))
    with pytest.raises(StoreTooNew, match="format 9"):
        await JsonStore(state).load()


async def test_a_newer_journal_is_refused(state: Path) -> None:
    from distconv_plugins.stores.json_store.journal import encode_line

    await commit(lambda: JsonStore(state), [put("a", n=1)])
    line = encode_line(b'"journal":7,"format":2,"after":[1,1]}')
    state.with_name("state.json.journal-00000007").write_bytes(line)
    with pytest.raises(StoreTooNew, match="journal-00000007 has format 2"):
        await JsonStore(state).load()


async def test_the_second_daemon_is_refused_with_the_owner_of_the_lock(state: Path) -> None:
    store = JsonStore(state)
    await store.load()
    with pytest.raises(StoreLocked, match=rf"in use by process {os.getpid()}; stop that daemon"):
        await JsonStore(state).load()
    await store.aclose()


def in_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "state.json"


@pytest.mark.parametrize(
    "place, message",
    [(in_a_file, "its directory must be writable"), (lambda path: path, "is a directory")],
)
async def test_an_unusable_state_path_is_reported_with_a_remedy(
    tmp_path: Path, place: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        await JsonStore(place(tmp_path)).load()


@pytest.mark.parametrize(
    "change",
    [
        Change("jobs", "bad", b'{"n":'),
        Change("jobs", "bad", b"[1]"),
        Change("jobs", "bad", b'{"n":"\xff"}'),
        Change("jobs", "bad", b""),
        Change("jobs", "\ud800", b"{}"),
        Change("nothing", "bad", b"{}"),  # type: ignore[arg-type]
    ],
)
async def test_a_record_that_would_corrupt_the_file_is_rejected_with_its_batch(
    state: Path, change: Change
) -> None:
    store = JsonStore(state)
    await store.load()
    with pytest.raises(StoreError):
        await store.commit([put("good", n=1), change])
    await store.commit([put("after", n=1)])
    await store.aclose()
    assert list((await contents(lambda: JsonStore(state))).jobs) == ["after"]


# ---------------------------------------------------------------------------------- a full disk


async def test_on_a_full_disk_the_daemon_starts_and_reads(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultDisk()
    path = Path("/state.json")
    store = JsonStore(path, disk=disk, bounds=NEVER)
    await store.load()
    await store.commit([put("a", n=1)])
    disk.restart()
    disk.fail_all("ENOSPC")
    later = JsonStore(path, disk=disk, bounds=NEVER)
    assert list((await later.load()).jobs) == ["a"]
    with pytest.raises(OSError, match="No space"):
        await later.commit([put("b", n=1)])
    disk.heal()
    await later.commit([put("b", n=2)])
    await later.aclose()
    assert (await contents(lambda: JsonStore(path, disk=disk))).jobs == {
        "a": record(n=1),
        "b": record(n=2),
    }
    await store.aclose()
