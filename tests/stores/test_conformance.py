"""Each bundled store passes the suite that every store must pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.store import CheckpointBounds, JsonStore
from distconv_plugins.stores.memory import Memory, MemoryStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.testing.faultdisk import Fault, FaultDisk
from distconvd.testing.store_suite import OpenStore, StoreSuite


class TestMemoryStore(StoreSuite):
    outlives_its_process = False

    @pytest.fixture
    def open_store(self) -> OpenStore:
        memory = Memory()
        self.stores: list[MemoryStore] = []

        def open_store() -> MemoryStore:
            self.stores.append(MemoryStore(memory))
            return self.stores[-1]

        return open_store

    @contextmanager
    def failing(self) -> Iterator[None]:
        self.stores[-1].fail_next(OSError("no"))
        yield


class TestJsonStore(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: JsonStore(tmp_path / "new" / "state.json")


class TestJsonStoreThatAlwaysCheckpoints(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        bounds = CheckpointBounds(quiet_s=0.0, journal_bytes_min=0, ratio=0.0)
        return lambda: JsonStore(tmp_path / "state.json", bounds=bounds)


class TestSpoolStore(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: SpoolStore(tmp_path / "new" / "state")


MAKERS: dict[str, Callable[[FaultDisk], JsonStore | SpoolStore]] = {
    "json": lambda disk: JsonStore(Path("/var/state.json"), disk=disk),
    "spool": lambda disk: SpoolStore(Path("/var/state"), disk=disk),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "torn"])
@pytest.mark.parametrize("kind", MAKERS)
class TestOnADiskThatFails(StoreSuite):
    outlives_its_process = False  # its disk is in memory

    @pytest.fixture
    def open_store(self, kind: str, fault: Fault) -> OpenStore:
        self.disk = FaultDisk()
        self.fault: Fault = fault
        return lambda: MAKERS[kind](self.disk)

    @contextmanager
    def failing(self) -> Iterator[None]:
        self.disk.fail_all(self.fault)
        yield
        self.disk.heal()
