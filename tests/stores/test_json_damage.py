"""The json store recovers from files that a crash, a disk or a person has damaged."""

import itertools
import json
import time
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.files import JsonFiles
from distconv_plugins.stores.json_store.journal import encode_line
from distconv_plugins.stores.json_store.store import CheckpointBounds, JsonStore
from distconvd.store import Damage, Snapshot
from distconvd.testing.faultdisk import FaultDisk, PowerCut, survivals
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
        files.commit([put(name, job_id=name, text="x" * 40)])
    disk.restart()
    return disk


def read(disk: FaultDisk) -> Snapshot:
    files = JsonFiles(disk, STATE)
    files.open()
    snapshot = Snapshot(**{table: dict(rows) for table, rows in files.tables.items()})
    files.close()
    return snapshot


def read_with_damage(disk: FaultDisk) -> tuple[str, list[Damage]]:
    files = JsonFiles(disk, STATE)
    files.open()
    found = "".join(files.tables["jobs"]), files.damage
    files.close()
    return found


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
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_a_journal_with_any_byte_flipped_gives_every_other_batch_and_names_the_lost_one(
    flip: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = disk_with_journal()
    path = journals(whole)[-1]
    text = whole.contents(path)
    for place in range(len(text)):
        caplog.clear()
        disk = whole.copy()
        disk.put(path, text[:place] + bytes([text[place] ^ flip]) + text[place + 1 :])
        lost = " bcd"[text[:place].count(b"\n")]
        jobs, damage = read_with_damage(disk)
        assert jobs in ("abcd", "abcd".replace(lost, "")), place
        if jobs == "abcd":
            assert damage == [], place
            continue
        assert lost in {name.key for name in damage[0].touched}, place
        assert damage[0].text.partition(" (found at")[0] in caplog.text
        assert [name for name in disk.files() if ".damaged-" in name.name], place
        assert read_with_damage(disk)[0] == jobs, f"{place}, again"


@pytest.mark.slow
def test_a_journal_with_any_blocks_zeroed_gives_every_whole_batch() -> None:
    whole = disk_with_journal()
    path = journals(whole)[-1]
    text = whole.contents(path)
    lines = text.splitlines(keepends=True)
    for first in range(0, len(text), 16):
        for end in range(first + 16, len(text) + 16, 16):
            disk = whole.copy()
            left = (text[:first] + b"\0" * (end - first) + text[end:])[: len(text)]
            disk.put(path, left)
            jobs, damage = read_with_damage(disk)
            kept = {job for job, line in zip("bcd", lines[1:], strict=True) if line in left}
            assert {"a", *kept} == set(jobs), (first, end)
            assert damage or jobs == "abcd"[: len(jobs)], "lost in the middle, and nothing is said"


def test_records_that_a_later_batch_has_written_are_not_named() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1), put("b", n=1), put("c", n=1), put("old", "meta", n=1)])
    files.commit([put("a", n=2), put("b", n=2), delete("c"), delete("old", "meta")])
    files.commit([put("a", n=3), delete("c")])
    disk.restart()
    path = journals(disk)[-1]
    text = disk.contents(path)
    disk.put(path, text.replace(b'"n":2', b'"n":7', 1))
    files = JsonFiles(disk, STATE)
    files.open()
    assert files.tables["jobs"] == {"a": record(n=3), "b": record(n=1)}
    (damage,) = files.damage
    assert list(map(str, damage.touched)) == ["jobs/b", "meta/old"]
    assert "batch 2 is lost; older than what was acknowledged, or missing: jobs/b" in damage.text


def test_a_job_is_named_even_if_its_key_is_what_was_damaged() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    for job_id in ("1754_1", "1754_2"):
        files.commit([put(job_id, job_id=job_id)])
    disk.restart()
    path = journals(disk)[-1]
    disk.put(path, disk.contents(path).replace(b'"jobs","1754_1"', b'"jobs","1754_3"'))
    jobs, damage = read_with_damage(disk)
    assert jobs == "1754_2"
    assert "1754_1" in {name.key for name in damage[0].touched}


def test_a_journal_without_the_journals_number_in_its_batches_is_read() -> None:
    """As earlier versions wrote it."""
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.close()
    changes = b'"changes":[["jobs","%b",{"n":1}]]}'
    lines = [encode_line(b'"batch":%d,' % n + changes % b"abc"[n - 1 : n]) for n in (1, 2, 3)]
    path = journals(disk)[-1]
    disk.put(path, disk.contents(path) + b"".join(lines))
    disk_damaged = disk.copy()
    assert read_with_damage(disk) == ("abc", [])
    disk_damaged.put(path, disk_damaged.contents(path).replace(b'"b",{"n":1}', b'"b",{"n":3}'))
    assert read_with_damage(disk_damaged)[0] == "ac"


def test_a_line_of_another_journal_is_not_applied() -> None:
    disk = disk_with_journal()
    path = journals(disk)[-1]
    alien = encode_line(b'"journal":1,"batch":9,"changes":[["jobs","alien",{}]]}')
    disk.put(path, disk.contents(path) + alien)
    assert read_with_damage(disk)[0] == "abcd"


def test_the_journals_behind_a_damaged_one_are_served() -> None:
    disk = FaultDisk()
    files = JsonFiles(disk, STATE)
    files.open()
    files.commit([put("a", n=1)])
    view = files.begin_checkpoint()
    assert view is not None
    files.commit([put("b", n=1)])
    files.commit([put("c", n=1)])
    files.end_checkpoint(view, files.write_checkpoint(view))
    files.commit([put("d", n=1)])
    disk.restart()
    first, _second = journals(disk)
    text = disk.contents(first)
    for corrupt, jobs in (
        (text.replace(b'"b",{"n":1}', b'"b",{"n":3}'), "acd"),
        (text.replace(b'"c",{"n":1}', b'"c",{"n":3}'), "abd"),
        (text[: text.index(b"\n", text.index(b'"b"')) + 1], "abd"),
        (text[:10], "ad"),
    ):
        damaged = disk.copy()
        damaged.put(first, corrupt)
        found, damage = read_with_damage(damaged)
        assert (found, len(damage)) == (jobs, 1)


def test_damage_is_reported_until_it_is_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    disk = disk_with_journal()
    path = journals(disk)[-1]
    disk.put(path, disk.contents(path).replace(b"xxx", b"xyx", 1))
    (first,) = read_with_damage(disk)[1]
    caplog.clear()
    (again,) = read_with_damage(disk)[1]
    assert again == first
    assert "damage that nobody has acknowledged" in caplog.text
    files = JsonFiles(disk, STATE)
    files.open()
    files.acknowledge_damage()
    assert files.damage == []
    files.close()
    assert read_with_damage(disk)[1] == []
    assert [path for path in disk.files() if ".damage.acknowledged-" in path.name]


def test_a_power_cut_while_damage_is_recovered_or_acknowledged_hides_nothing() -> None:
    damaged = disk_with_journal()
    path = journals(damaged)[-1]
    damaged.put(path, damaged.contents(path).replace(b"xxx", b"xyx", 1))
    for number in itertools.count():
        disk = damaged.copy()
        disk.cut_power_at(number)
        files = JsonFiles(disk, STATE)
        acknowledging = False
        try:
            files.open()
            acknowledging = True
            files.acknowledge_damage()
        except PowerCut:
            for survival in survivals(number, 4):
                jobs, damage = read_with_damage(disk.after_power_cut(survival))
                assert jobs == "acd", (number, survival.name)
                assert [name.key for found in damage for name in found.touched] == ["b"] or (
                    acknowledging and not damage
                )
        else:
            assert number > 10
            return


def test_a_list_of_damage_that_is_damaged_itself_is_reported() -> None:
    disk = disk_with_journal()
    disk.put(Path("/state.json.damage"), b'{"format":1,')
    (damage,) = read_with_damage(disk)[1]
    assert "the list of earlier damage, /state.json.damage, cannot be read" in damage.text


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
    assert "a journal is missing, so everything after the gap is left out" in caplog.text
    assert "missing: jobs/c" in caplog.text
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
