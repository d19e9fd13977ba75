"""The fault-injecting disk keeps its own rules; otherwise the tests that use it prove nothing."""

import errno
from pathlib import Path

import pytest

from distconvd.disk import Disk, make_directories, read_all, write_all
from distconvd.testing.faultdisk import BLOCK_BYTES, FaultDisk, PowerCut, Survival, survivals

NOTHING, EVERYTHING, NAMES, CONTENTS = survivals(0, 0)
A, B = Path("/a"), Path("/b")


def write(disk: Disk, path: Path, data: bytes, *, sync: bool = False) -> None:
    file = disk.open(path, "create")
    write_all(file, data)
    if sync:
        file.fsync()
    file.close()


def surviving(disk: FaultDisk, survival: Survival) -> dict[str, bytes]:
    after = disk.after_power_cut(survival)
    return {path.name: after.contents(path) for path in after.files()}


def test_a_file_that_was_never_synced_may_be_gone_empty_or_whole() -> None:
    disk = FaultDisk()
    write(disk, A, b"x")
    assert [surviving(disk, survival) for survival in (NOTHING, NAMES, EVERYTHING)] == [
        {},
        {"a": b""},
        {"a": b"x"},
    ]


def test_syncing_a_file_does_not_make_its_name_durable() -> None:
    disk = FaultDisk()
    write(disk, A, b"x", sync=True)
    assert surviving(disk, NOTHING) == {}
    disk.fsync_dir(A.parent)
    assert surviving(disk, NOTHING) == {"a": b"x"}


def test_a_rename_is_there_or_not_but_never_half() -> None:
    disk = FaultDisk()
    write(disk, A, b"x", sync=True)
    disk.fsync_dir(A.parent)
    disk.rename(A, B)
    for survival in survivals(1, 20):
        assert surviving(disk, survival) in ({"a": b"x"}, {"b": b"x"})


def test_a_rename_into_another_directory_never_loses_the_file() -> None:
    disk = FaultDisk()
    disk.mkdir(Path("/d"))
    write(disk, A, b"x", sync=True)
    disk.fsync_dir(A.parent)
    disk.rename(A, Path("/d/b"))
    for survival in survivals(1, 20):
        assert set(surviving(disk, survival).values()) == {b"x"}


def test_each_block_that_was_not_synced_survives_on_its_own() -> None:
    disk = FaultDisk()
    write(disk, A, b"", sync=True)
    disk.fsync_dir(A.parent)
    file = disk.open(A, "append")
    file.write(b"x" * BLOCK_BYTES + b"y" * BLOCK_BYTES)
    found = {surviving(disk, survival)["a"] for survival in survivals(7, 40)}
    x, y, zero = b"x" * BLOCK_BYTES, b"y" * BLOCK_BYTES, b"\0" * BLOCK_BYTES
    assert found >= {b"", x, x + y, zero + y}


def test_a_truncation_that_was_not_synced_may_be_undone() -> None:
    disk = FaultDisk()
    write(disk, A, b"x" * 10, sync=True)
    disk.fsync_dir(A.parent)
    disk.open(A, "append").truncate(4)
    assert {surviving(disk, survival)["a"] for survival in (NOTHING, EVERYTHING)} == {
        b"x" * 10,
        b"x" * 4,
    }


def test_what_a_failed_sync_should_have_written_is_lost_whatever_is_synced_later() -> None:
    disk = FaultDisk()
    write(disk, A, b"old", sync=True)
    disk.fsync_dir(A.parent)
    file = disk.open(A, "append")
    file.write(b"new")
    disk.fail(len(disk.operations), "EIO")
    with pytest.raises(OSError, match="Input/output"):
        file.fsync()
    file.fsync()
    assert read_all(disk, A) == b"oldnew"
    assert surviving(disk, EVERYTHING)["a"] == b"old"


def test_a_short_write_takes_half_and_a_torn_one_raises_as_well() -> None:
    disk = FaultDisk()
    file = disk.open(A, "create")
    disk.fail(1, "short")
    assert file.write(b"12345678") == 4
    disk.fail(2, "torn")
    with pytest.raises(OSError, match="No space") as raised:
        file.write(b"abcd")
    assert raised.value.errno == errno.ENOSPC
    assert read_all(disk, A) == b"1234ab"


def test_a_full_disk_lets_files_be_cut_and_removed() -> None:
    disk = FaultDisk()
    write(disk, A, b"x")
    disk.fail_all("ENOSPC")
    with pytest.raises(OSError, match="No space"):
        disk.open(B, "create")
    disk.open(A, "append").truncate(0)
    disk.unlink(A)
    disk.heal()
    write(disk, B, b"x")


def test_without_power_nothing_works() -> None:
    disk = FaultDisk()
    disk.cut_power_at(1)
    file = disk.open(A, "create")
    for _ in range(2):
        with pytest.raises(PowerCut):
            file.write(b"x")
    with pytest.raises(PowerCut):
        disk.mkdir(B)


def test_what_is_in_a_directory_goes_with_it() -> None:
    disk = FaultDisk()
    disk.mkdir(Path("/d"))
    write(disk, Path("/d/a"), b"x", sync=True)
    disk.fsync_dir(Path("/d"))
    assert surviving(disk, NOTHING) == {}


def test_a_lock_is_free_after_a_kill() -> None:
    disk = FaultDisk()
    disk.lock(A, "me")
    with pytest.raises(BlockingIOError, match="me"):
        disk.lock(A, "you")
    disk.restart()
    disk.lock(A, "you").release()
    disk.lock(A, "me")


def test_directories_are_made_durable_also_those_that_a_killed_run_made() -> None:
    disk = FaultDisk()
    disk.mkdir(Path("/x"))
    make_directories(disk, Path("/x/y/z"))
    assert disk.after_power_cut(NOTHING).is_directory(Path("/x/y/z"))
