"""A second daemon is refused even if a person has removed the lock file of the first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.files import JsonFiles
from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.spool_store.files import SpoolFiles
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.commands.read_only_disk import DiskView
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import StoreLocked
from distconvd.testing.faultdisk import Fault, FaultDisk, Operation
from distconvd.testing.store_suite import contents, put, record

Make = Callable[[Path, Disk], JsonStore | SpoolStore]
STORES: dict[str, tuple[str, Make]] = {
    "json": ("state.json.lock", lambda top, disk: JsonStore(top / "state.json", disk=disk)),
    "spool": ("state/lock", lambda top, disk: SpoolStore(top / "state", disk=disk)),
}


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("disk", [REAL_DISK, DiskView()], ids=["daemon", "audit"])
async def test_removing_the_lock_file_lets_no_second_process_in(
    tmp_path: Path, kind: str, disk: Disk
) -> None:
    lock, make = STORES[kind]
    store = make(tmp_path, REAL_DISK)
    await store.load()
    await store.commit([put("a", n=1)])
    (tmp_path / lock).unlink()
    with pytest.raises(StoreLocked, match=r"lock is not locked \(was it removed\?\); stop that"):
        await make(tmp_path, disk).load()
    await store.commit([put("b", n=1)])
    await store.aclose()
    jobs = (await contents(lambda: make(tmp_path, REAL_DISK))).jobs
    assert jobs == {"a": record(n=1), "b": record(n=1)}


async def test_an_audit_without_its_lock_file_keeps_a_daemon_out(tmp_path: Path, kind: str) -> None:
    lock, make = STORES[kind]
    await contents(lambda: make(tmp_path, REAL_DISK))
    audit = make(tmp_path, DiskView())
    await audit.load()
    (tmp_path / lock).unlink()
    with pytest.raises(StoreLocked):
        await make(tmp_path, REAL_DISK).load()
    await audit.aclose()
    await contents(lambda: make(tmp_path, REAL_DISK))


class Intruder(FaultDisk):
    """A disk that, before each operation, calls `intrude` unless that is running already."""

    intrude: Callable[[], None] | None = None

    def operation(self, operation: Operation, path: Path) -> Fault | None:
        intrude, self.intrude = self.intrude, None
        if intrude is not None:
            intrude()
            self.intrude = intrude
        return super().operation(operation, path)


MAKE_FILES: dict[str, Callable[[Disk], JsonFiles | SpoolFiles]] = {
    "json": lambda disk: JsonFiles(disk, Path("/state.json")),
    "spool": lambda disk: SpoolFiles(disk, Path("/state")),
}
LOCKS = {"json": Path("/state.json.lock"), "spool": Path("/state/lock")}


def test_at_no_moment_of_a_run_can_a_second_daemon_enter(kind: str) -> None:
    disk = Intruder()
    refused: list[int] = []

    def intrude() -> None:
        disk.unlock_by_removing(LOCKS[kind])
        with pytest.raises(StoreLocked):
            MAKE_FILES[kind](disk).open()
        refused.append(len(disk.operations))

    files = MAKE_FILES[kind](disk)
    files.open()
    disk.intrude = intrude
    for n in range(3):
        files.commit([put("a", n=n)])
        if isinstance(files, JsonFiles):
            files.checkpoint()
            disk.fail(len(disk.operations) + 3, "EIO")  # the journal's sync: it is poisoned
            with pytest.raises(OSError, match="Input/output"):
                files.commit([put("a", n=n)])
    disk.intrude = None
    files.close()
    assert len(refused) > 10
    MAKE_FILES[kind](disk).open()
