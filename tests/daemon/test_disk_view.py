"""The read-only view of a disk: stores work on it, and the real disk does not change."""

import os
from pathlib import Path

import pytest
from tests.daemon.test_audit import print_of

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.commands.read_only_disk import DiskView
from distconvd.disk import REAL_DISK
from distconvd.errors import StoreLocked
from distconvd.store import Store
from distconvd.testing.store_suite import put


@pytest.fixture
def view(tmp_path: Path) -> DiskView:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "sub").mkdir()
    return DiskView()


def test_names_change_in_the_view_only(view: DiskView, tmp_path: Path) -> None:
    before = list(print_of(tmp_path))
    view.rename(tmp_path / "a", tmp_path / "b")
    view.link(tmp_path / "b", tmp_path / "sub" / "c")
    view.mkdir(tmp_path / "sub" / "d")
    view.unlink(tmp_path / "b")
    assert sorted(view.listdir(tmp_path)) == ["sub"]
    assert sorted(view.listdir(tmp_path / "sub")) == ["c", "d"]
    assert view.is_directory(tmp_path / "sub" / "d")
    file = view.open(tmp_path / "sub" / "c", "read")
    assert (file.read(9), view.size(tmp_path / "sub" / "c")) == (b"abc", 3)
    file.close()
    for gone in ("a", "b", "never"):
        with pytest.raises(FileNotFoundError):
            view.open(tmp_path / gone, "read")
    assert list(print_of(tmp_path)) == before


def test_written_bytes_are_counted_and_dropped(view: DiskView, tmp_path: Path) -> None:
    for file in (view.open(tmp_path / "new", "create"), view.open(tmp_path / "a", "append")):
        assert file.write(b"12345") == 5
        file.fsync()
        file.fdatasync()
        file.close()
    assert (view.size(tmp_path / "new"), view.size(tmp_path / "a")) == (5, 8)
    view.open(tmp_path / "a", "append").truncate(2)
    assert view.size(tmp_path / "a") == 2
    with pytest.raises(OSError, match="are dropped"):
        view.open(tmp_path / "new", "read")
    with pytest.raises(OSError, match="for writing"):
        view.open(tmp_path / "new", "append").read(1)
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert not (tmp_path / "new").exists()


def test_an_operation_that_a_disk_rejects_is_rejected_by_its_view(
    view: DiskView, tmp_path: Path
) -> None:
    with pytest.raises(FileExistsError):
        view.mkdir(tmp_path / "sub")
    with pytest.raises(FileExistsError):
        view.link(tmp_path / "a", tmp_path / "sub")
    with pytest.raises(FileNotFoundError):
        view.open(tmp_path / "nowhere" / "x", "create")
    with pytest.raises(FileNotFoundError):
        view.unlink(tmp_path / "never")


def test_a_taken_lock_is_reported_with_its_owner_and_a_free_one_is_shared(
    view: DiskView, tmp_path: Path
) -> None:
    place = tmp_path / "lock"
    view.lock(place, "me").release()
    assert not place.exists()
    held_lock = REAL_DISK.lock(place, "4711")
    with pytest.raises(BlockingIOError) as caught:
        view.lock(place, "me")
    assert caught.value.strerror == "4711"
    held_lock.release()
    shared, also = view.lock(place, "me"), view.lock(place, "me")
    with pytest.raises(BlockingIOError):
        REAL_DISK.lock(place, "a daemon")
    for lock in (shared, also, also):
        lock.release()
    REAL_DISK.lock(place, "a daemon").release()


def made(kind: str, place: Path, view: DiskView | None = None) -> Store:
    disk = REAL_DISK if view is None else view
    return JsonStore(place, disk=disk) if kind == "json" else SpoolStore(place, disk=disk)


@pytest.mark.parametrize("kind", ["json", "spool"])
async def test_a_store_on_a_view_commits_batches_and_the_disk_does_not_change(
    kind: str, tmp_path: Path
) -> None:
    store = made(kind, tmp_path / "state")
    await store.load()
    await store.commit([put("a", v=1), put("e", "engines", v=2)])
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        await made(kind, tmp_path / "state", DiskView()).load()
    await store.aclose()
    before = list(print_of(tmp_path))
    looked = made(kind, tmp_path / "state", DiskView())
    snapshot = await looked.load()
    await looked.commit([put("b", v=3), put("a", v=4)])
    await looked.aclose()
    assert (list(snapshot.jobs), list(snapshot.engines)) == (["a"], ["e"])
    assert list(print_of(tmp_path)) == before


@pytest.mark.parametrize("kind", ["json", "spool"])
async def test_a_store_whose_daemon_was_killed_shows_its_last_batch_on_a_view(
    kind: str, tmp_path: Path
) -> None:
    place, copy = tmp_path / "state", tmp_path / "copy"
    store = made(kind, place)
    await store.load()
    await store.commit([put("a", v=1)])
    # As a kill leaves it: there was no checkpoint.
    for path in tmp_path.rglob("*"):
        if path.is_file():
            target = tmp_path / Path(str(path.relative_to(tmp_path)).replace("state", "copy", 1))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    await store.aclose()
    before = list(print_of(tmp_path))
    looked = made(kind, copy, DiskView())
    assert list((await looked.load()).jobs) == ["a"]
    await looked.aclose()
    assert list(print_of(tmp_path)) == before
