"""The json store recovers from files that a crash, a disk or a person has damaged."""

import json
import time
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.files import JsonFiles
from distconv_plugins.stores.json_store.store import CheckpointBounds, JsonStore
from distconvd.store import Snapshot
from distconvd.testing.faultdisk import FaultDisk
from distconvd.testing.store_suite import commit, contents, delete, put, record

STATE = Path("/state.json")
NEVER = CheckpointBounds(small_bytes=0, journal_bytes_min=1 << 40)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


async def kept_aside(state: Path, why: str) -> bytes:
    (path,) = state.parent.glob(f"state.json*.{why}-*")
    return path.read_bytes()


def journals(disk: FaultDisk) -> list[Path]:
    return [path for path in disk.files() if path.name.startswith("state.json.journal-")]


def disk_with_journal() -> FaultDisk:
    """Return a killed store's disk, with `a` in the state file and `b`, `c`, `d` in the journal."""
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1)])
    files.checkpoint()
    for name in "bcd":
        files.commit([put(name, n=1, text="x" * 40)])
    disk.restart()
    return disk


def read(disk: FaultDisk) -> Snapshot:
    files = JsonFiles(disk, STATE)
    files.open()
    snapshot = Snapshot(**{table: dict(rows) for table, rows in files.tables.items()})
    files.close()
    return snapshot


# -------------------------------------------------------------------------------- the state file


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"x"',
        "{",
        "nonsense",
        "\0" * 100,
        '{"jobs": []}',
        "7",
        '{"version":1,"keys":[]}',
    ],
)
async def test_a_useless_state_file_is_kept_aside_and_the_start_is_empty(
    state: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    state.write_text(text)
    assert await contents(lambda: JsonStore(state)) == ({}, {}, {}, {})
    assert await kept_aside(state, "corrupt" if text else "empty") == text.encode()
    assert "state.json" in caplog.text
    await commit(lambda: JsonStore(state), [put("a", n=1)])
    assert (await contents(lambda: JsonStore(state))).jobs == {"a": record(n=1)}


@pytest.mark.parametrize(
    "text", ["{}", '{"jobs":{}}', '{"engines":{}}', '{"engines":{},"x":1}', '{"meta":{}}']
)
async def test_a_state_file_that_lacks_parts_is_accepted_and_not_set_aside(
    state: Path, text: str
) -> None:
    state.write_text(text)
    assert await contents(lambda: JsonStore(state)) == ({}, {}, {}, {})
    assert list(state.parent.glob("*.corrupt-*")) == []


async def test_each_damaged_file_is_kept_under_a_name_of_its_own(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101T000000Z")
    for text in ("{1", "{2", "{3"):
        state.write_text(text)
        await contents(lambda: JsonStore(state))
    kept_texts = {path.read_text() for path in state.parent.glob("*.corrupt-*")}
    assert kept_texts == {"{1", "{2", "{3"}


@pytest.mark.parametrize("size", [0, 1, 50, 200])
async def test_a_truncated_state_file_loses_nothing(
    state: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(5):
        await commit(lambda: JsonStore(state), [put(f"job-{n}", n=n)], [put("x", "meta", n=n)])
    state.write_bytes(state.read_bytes()[:size])
    snapshot = await contents(lambda: JsonStore(state))
    assert list(snapshot.jobs) == [f"job-{n}" for n in range(5)]
    assert snapshot.meta == {"x": record(n=4)}
    assert "using the previous state file" in caplog.text
    assert len(await kept_aside(state, "corrupt")) == size


async def test_with_both_state_files_corrupt_the_records_in_the_journals_are_recovered(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(5):
        await commit(lambda: JsonStore(state), [put(f"job-{n}", n=n)])
    state.write_text("{")
    state.with_name("state.json.previous").write_text("{")
    jobs = (await contents(lambda: JsonStore(state))).jobs
    assert "job-4" in jobs
    assert all(jobs[name] == record(n=int(name[4:])) for name in jobs)
    assert "the previous state file is corrupt too" in caplog.text


async def test_a_state_file_that_a_person_removed_stays_removed(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(lambda: JsonStore(state), [put("a", n=1)])
    await commit(lambda: JsonStore(state), [put("b", n=1)])
    state.unlink()
    assert await contents(lambda: JsonStore(state)) == ({}, {}, {}, {})
    assert list(state.parent.glob("state.json.previous.orphan-*"))
    assert "is kept as" in caplog.text


async def test_a_backup_of_the_state_file_alone_is_all_that_is_needed(
    state: Path, tmp_path: Path
) -> None:
    await commit(lambda: JsonStore(state), [put("a", n=1), put("b", n=1)], [delete("b")])
    backup = tmp_path / "elsewhere" / "state.json"
    backup.parent.mkdir()
    backup.write_bytes(state.read_bytes())
    assert (await contents(lambda: JsonStore(backup))).jobs == {"a": record(n=1)}


def test_an_error_while_reading_is_not_a_reason_to_set_a_file_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = disk_with_journal()

    def fail(_path: Path) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "size", fail)
        with pytest.raises(OSError, match="Input/output"):
            JsonFiles(disk, STATE).open()
    assert list(read(disk).jobs) == ["a", "b", "c", "d"]


# ------------------------------------------------------------------------------------ the journal


@pytest.mark.slow
def test_a_journal_truncated_at_any_byte_gives_its_whole_batches() -> None:
    whole = disk_with_journal()
    path = journals(whole)[-1]
    text = whole.contents(path)
    for size in range(len(text) + 1):
        disk = whole.copy()
        disk.put(path, text[:size])
        batches = max(text[:size].count(b"\n") - 1, 0)
        assert list(read(disk).jobs) == ["a", "b", "c", "d"][: batches + 1], size
        assert list(read(disk).jobs) == ["a", "b", "c", "d"][: batches + 1], f"{size}, again"


@pytest.mark.slow
def test_a_journal_with_any_byte_flipped_gives_the_batches_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = disk_with_journal()
    path = journals(whole)[-1]
    text = whole.contents(path)
    for place in range(len(text)):
        caplog.clear()
        disk = whole.copy()
        disk.put(path, text[:place] + bytes([text[place] ^ 0x01]) + text[place + 1 :])
        line = text[:place].count(b"\n")
        jobs = read(disk).jobs
        assert list(jobs) == ["a", "b", "c", "d"][: max(line, 1)], place
        assert jobs["a"] == record(n=1)
        if line < 3:
            assert "damaged" in caplog.text or "is missing" in caplog.text, place
            assert [name for name in disk.files() if ".damaged-" in name.name], place


def test_a_missing_journal_is_detected(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1)])
    view = files.begin_checkpoint()
    assert view is not None
    files.commit([put("b", n=1)])
    files.end_checkpoint(view, files.write_checkpoint(view))
    files.commit([put("c", n=1)])
    disk.restart()
    middle = journals(disk)[0]
    disk.unlink(middle)
    assert list(read(disk).jobs) == ["a"]
    assert "a journal is missing or damaged" in caplog.text
    assert [path for path in disk.files() if ".damaged-" in path.name]


def test_a_batch_that_failed_does_not_come_back_with_the_previous_state_file() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1)])
    # Neither the sync nor the truncation works, so the failed batch stays in the journal, whole.
    disk.fail(len(disk.operations) + 1, "EIO", lasting=True)
    with pytest.raises(OSError, match="Input/output"):
        files.commit([put("refused", n=1)])
    disk.heal()
    files.commit([put("b", n=1)])
    disk.restart()
    assert any(b"refused" in disk.contents(path) for path in journals(disk))
    disk.put(STATE, b"{")
    assert list(read(disk).jobs) == ["a", "b"]


def test_a_journal_is_never_written_again_after_a_failed_sync() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1)])
    hurt = journals(disk)[-1]
    disk.fail(len(disk.operations) + 1, "EIO")
    with pytest.raises(OSError, match="Input/output"):
        files.commit([put("b", n=1)])
    failed_at = len(disk.operations)
    files.commit([put("b", n=1)])
    assert ("write", hurt) not in disk.operations[failed_at:]
    assert list(json.loads(disk.contents(STATE))["jobs"]) == ["a"]
    disk.restart()
    assert list(read(disk).jobs) == ["a", "b"]


def test_a_failed_write_does_not_cause_a_rewrite_of_the_state_file() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    disk.fail(len(disk.operations), "torn")
    with pytest.raises(OSError, match="No space"):
        files.commit([put("a", n=1)])
    failed_at = len(disk.operations)
    files.commit([put("a", n=2)])
    assert [name for name, _path in disk.operations[failed_at:]] == ["write", "fdatasync"]


def test_an_empty_batch_tries_a_disk_that_has_failed() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    disk.fail(len(disk.operations) + 1, "EIO", lasting=True)
    for batch in ([put("a", n=1)], [], []):
        with pytest.raises(OSError, match="Input/output"):
            files.commit(batch)
    disk.heal()
    files.commit([])
    disk.restart()
    assert read(disk).jobs == {}
