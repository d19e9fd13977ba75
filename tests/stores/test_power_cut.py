"""Every disk operation of the two disk stores fails once, and is once the last before a power cut.

`DISTCONV_TEST_LONG=1` draws more of what may survive, and more often cuts the power again at each
operation of a recovery. Both forms do the same in each run.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.files import JsonFiles, View
from distconv_plugins.stores.spool_store.files import SpoolFiles
from distconvd.store import Change, Snapshot
from distconvd.testing.faultdisk import Fault, FaultDisk
from distconvd.testing.power_cut import (
    Scenario,
    Step,
    audit_faults,
    audit_power_cuts,
    list_operations,
)
from distconvd.testing.store_suite import delete, put

pytestmark = pytest.mark.slow

LONG = bool(os.environ.get("DISTCONV_TEST_LONG"))


class JsonSubject:
    """The files of a json store; a checkpoint has three steps, and commits may come in between.

    What a power cut or a failing disk leaves is never reported as damage: nothing that was acknowledged
    is lost.
    """

    is_damaged = False

    def __init__(self, disk: FaultDisk) -> None:
        self.files = JsonFiles(disk, Path("/var/state.json"))
        self.view: View | None = None
        self.size = 0

    def open(self) -> Snapshot:
        self.files.open()
        assert self.is_damaged or not self.files.damage, self.files.damage
        return Snapshot(**{table: dict(rows) for table, rows in self.files.tables.items()})

    def commit(self, changes: Sequence[Change]) -> None:
        self.files.commit(changes)

    def step(self, name: str) -> None:
        if name == "checkpoint":
            self.files.checkpoint()
        elif name == "begin checkpoint":
            self.view = self.files.begin_checkpoint()
        elif self.view is not None and name == "write checkpoint":
            self.size = self.files.write_checkpoint(self.view)
        elif self.view is not None and self.size and name == "end checkpoint":
            self.files.end_checkpoint(self.view, self.size)

    def close(self) -> None:
        self.files.close()


class SpoolSubject:
    """The files of a spool store."""

    def __init__(self, disk: FaultDisk) -> None:
        self.files = SpoolFiles(disk, Path("/var/state"))

    def open(self) -> Snapshot:
        snapshot = self.files.open()
        assert not self.files.damage, self.files.damage
        return snapshot

    def commit(self, changes: Sequence[Change]) -> None:
        self.files.commit(changes)

    def step(self, name: str) -> None:
        """Do nothing: it has no checkpoints."""

    def close(self) -> None:
        self.files.close()


class DamagedJsonSubject(JsonSubject):
    """A json store whose state file has been corrupted, too."""

    is_damaged = True


FIRST: list[Step] = [
    [put("a", n=1), put("b", n=1), put("e", "engines", n=1)],
    [put("a", n=2, text="x" * 150), delete("b")],
]
MIDDLE: list[Step] = [
    "begin checkpoint",
    [put("c", n=1), put("a", "attempts", n=1)],
    "write checkpoint",
    [delete("a"), put("b", n=2), put("a", n=3)],
    "end checkpoint",
    [put(f"many-{n}", n=n, text="y" * 90) for n in range(5)],
]
LAST: list[Step] = [
    "close",
    "open",
    [put("c", n=2), delete("e", "engines"), delete("many-3")],
    "kill",
    "open",
    [put("d", n=1)],
    "checkpoint",
    [put("d", n=2)],
]
SCENARIOS = {
    "json": Scenario(JsonSubject, [*FIRST, "checkpoint", *MIDDLE, *LAST]),
    "spool": Scenario(SpoolSubject, [*FIRST, *MIDDLE, *LAST]),
}


def report(line: str) -> None:
    """Show a figure under `pytest -rP` or `-s`."""
    sys.stdout.write(f"\n{line}\n")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Disable logging: tens of thousands of faults would be logged, and nobody reads them here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return SCENARIOS[request.param]


@pytest.mark.parametrize("kind", SCENARIOS)
def test_the_documented_number_of_operations_is_tried(kind: str) -> None:
    document = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
    assert f"| {kind} | {len(list_operations(SCENARIOS[kind]))} |" in document


def test_the_scenario_makes_each_kind_of_operation_that_the_stores_use(scenario: Scenario) -> None:
    operations = list_operations(scenario)
    assert set(operations) >= {"create", "write", "fsync", "rename", "unlink", "mkdir", "fsync_dir"}


def test_a_power_cut_anywhere_loses_nothing_and_invents_nothing(scenario: Scenario) -> None:
    audit = audit_power_cuts(scenario, draws=16 if LONG else 3, again=5 if LONG else 25)
    report(f"power cuts: {audit}")
    assert audit.openings > 10 * audit.points


def cut_in_half(contents: bytes) -> bytes:
    return contents[: len(contents) // 2]


def overwrite(contents: bytes) -> bytes:
    return b"\0" * 20 + contents[20:]


@pytest.mark.parametrize("damage", [cut_in_half, overwrite])
def test_with_a_state_file_that_is_corrupt_as_well_nothing_is_lost_either(
    damage: Callable[[bytes], bytes],
) -> None:
    state = Path("/var/state.json")

    def damage_state(disk: FaultDisk) -> None:
        if state in disk.files():
            disk.put(state, damage(disk.contents(state)))

    scenario = SCENARIOS["json"]._replace(make=DamagedJsonSubject, damage=damage_state)
    audit = audit_power_cuts(scenario, draws=24 if LONG else 1)
    report(f"power cuts and a corrupt state file: {audit}")


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "short", "torn"])
def test_a_passing_fault_anywhere_loses_nothing_and_invents_nothing(
    scenario: Scenario, fault: Fault
) -> None:
    audit = audit_faults(scenario, [fault], lasting=False, draws=8 if LONG else 1)
    report(f"passing {fault}: {audit}")
    assert audit.trials == audit.points or fault in ("short", "torn")


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "torn"])
def test_a_lasting_fault_loses_nothing_and_invents_nothing(
    scenario: Scenario, fault: Fault
) -> None:
    draws, every = (8, 1) if LONG else (1, 3)
    audit = audit_faults(scenario, [fault], lasting=True, draws=draws, every=every)
    report(f"lasting {fault}: {audit}")
    assert audit.trials > 5
