"""Try every disk fault and power cut on a store, and check what it recovers.

A `Scenario` is a way to open a store on a `FaultDisk` and a script of batches and other steps. It is
run once to number its disk operations, and then again for each of them: with a fault there
(`audit_faults`), or with a power cut there (`audit_power_cuts`). The remaining files are opened again
on a healthy disk, and must contain exactly what was acknowledged, and the batch in progress either as
a whole or not at all: nothing lost, nothing partial, nothing invented, and in the right order.

The script runs in one thread and in a fixed order, so the numbers mean the same in every run. A store
with its own threads is tested by the functions that these threads call, step by step (`Subject.step`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from distconvd.errors import StoreError
from distconvd.store import Change, Snapshot
from distconvd.testing.faultdisk import Fault, FaultDisk, Operation, PowerCut, Survival, survivals

Step = Sequence[Change] | str
"""A batch to commit; or `close`, `open`, `kill` (the process ends without closing), or the name of a
step of the subject."""

TRIES = 6
"""How often a failed step is tried; a lasting fault is removed after half of the tries."""


class Subject(Protocol):
    """A store with blocking calls."""

    def open(self) -> Snapshot:
        """Lock, recover and read."""
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Commit a batch."""
        ...

    def step(self, name: str) -> None:
        """Do a step of its own, such as a part of a checkpoint."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Scenario(NamedTuple):
    """A store and a script to test it with.

    Attributes:
        make: makes a subject on a disk, not opened yet.
        steps: the script; the subject is opened before it.
        damage: further damage after a power cut, before the files are opened; for a store that
            claims to survive more than power cuts.
    """

    make: Callable[[FaultDisk], Subject]
    steps: Sequence[Step]
    damage: Callable[[FaultDisk], None] | None = None


class Audit(NamedTuple):
    """How much was tested.

    Attributes:
        points: disk operations in the script.
        trials: runs of the script.
        openings: states of the disk that were opened and checked.
    """

    points: int
    trials: int
    openings: int


Contents = list[list[tuple[str, bytes]]]
"""The tables with their records, as lists, so that their order is compared, too."""


def contents_of(snapshot: Snapshot) -> Contents:
    """Return the contents of a snapshot in a form that compares order."""
    return [list(table.items()) for table in snapshot]


class _Model:
    """What the store must contain: what was acknowledged, and perhaps the batch in progress."""

    def __init__(self) -> None:
        self.acknowledged = Snapshot({}, {}, {}, {})
        self.in_progress: Sequence[Change] | None = None

    def allowed(self) -> list[Contents]:
        states = [self.acknowledged]
        if self.in_progress is not None:
            states.append(_after(self.acknowledged, self.in_progress))
        return [contents_of(state) for state in states]

    def acknowledge(self, changes: Sequence[Change]) -> None:
        self.acknowledged = _after(self.acknowledged, changes)
        self.in_progress = None


def _after(state: Snapshot, changes: Sequence[Change]) -> Snapshot:
    tables = Snapshot(*(dict(table) for table in state))
    for table, key, record in changes:
        records: dict[str, bytes] = getattr(tables, table)
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record
    return tables


class _Trial:
    """One run of the script.

    Attributes:
        failures: how many calls have failed so far.
        openings: how many states were checked.
        strict: a failed batch must have no effect if there was no power cut.
    """

    def __init__(self, scenario: Scenario, disk: FaultDisk, what: str) -> None:
        self.scenario = scenario
        self.disk = disk
        self.what = what
        self.model = _Model()
        self.failures = 0
        self.openings = 0
        self.strict = True
        self.subject = scenario.make(disk)

    def run(self) -> Iterator[None]:
        """Run the script; yield after each step, and after each failed try of one."""
        yield from self._persist(self._open)
        for step in self.scenario.steps:
            if not isinstance(step, str):
                yield from self._persist(functools.partial(self._commit, step))
            elif step == "open":
                yield from self._persist(self._open)
            elif step == "kill":
                self.disk.restart()
            elif step == "close":
                self.subject.close()
            else:
                self._other(step)
            yield

    def _persist(self, call: Callable[[], None]) -> Iterator[None]:
        for attempt in range(TRIES):
            if attempt == TRIES // 2:
                self.disk.heal()
            try:
                call()
                return
            except (OSError, StoreError):
                self.failures += 1
                yield
        raise AssertionError(f"{self.what}: a step fails on a healthy disk")

    def _open(self) -> None:
        self.subject = self.scenario.make(self.disk)
        self._compare(self.subject.open(), self.what)

    def _commit(self, batch: Sequence[Change]) -> None:
        self.model.in_progress = batch
        self.subject.commit(batch)
        self.model.acknowledge(batch)

    def _other(self, step: str) -> None:
        try:
            self.subject.step(step)
        except OSError:
            self.failures += 1

    # ---------------------------------------------------------------------------------- checking

    def check(self, disk: FaultDisk, what: str) -> Snapshot:
        """Open a disk's store, compare its contents, and check that it can commit more."""
        what = f"{self.what}, {what}"
        if self.scenario.damage is not None:
            self.scenario.damage(disk)
        subject = self.scenario.make(disk)
        found = subject.open()
        self._compare(found, what)
        more = [Change("jobs", "after", b'{"n":1}'), Change("meta", "after", b'{"n":2}')]
        subject.commit(more)
        expected = contents_of(_after(found, more))
        _same(_read(self.scenario, disk.copy()), expected, f"{what}, one batch later")
        subject.close()
        _same(_read(self.scenario, disk), expected, f"{what}, closed and opened")
        return found

    def check_shown(self, disk: FaultDisk) -> None:
        """After a kill, check that what the store shows is durable before anything is written."""
        shown = self.scenario.make(disk).open()
        self._compare(shown, f"{self.what}, killed")
        nothing = disk.after_power_cut(survivals(0, 0)[0])
        _same(
            _read(self.scenario, nothing), contents_of(shown), f"{self.what}, killed, then no power"
        )
        self.openings += 1

    def _compare(self, found: Snapshot, what: str) -> None:
        self.openings += 1
        allowed = self.model.allowed()
        assert contents_of(found) in allowed, (
            f"{what}: found {contents_of(found)}, allowed {' or '.join(map(str, allowed))}"
        )


def _read(scenario: Scenario, disk: FaultDisk) -> Contents:
    subject = scenario.make(disk)
    found = contents_of(subject.open())
    subject.close()
    return found


def _same(found: Contents, expected: Contents, what: str) -> None:
    assert found == expected, f"{what}: found {found}, expected {expected}"


def list_operations(scenario: Scenario) -> list[Operation]:
    """Run the script on a healthy disk and return its disk operations."""
    disk = FaultDisk()
    trial = _Trial(scenario, disk, "healthy")
    for _ in trial.run():
        assert not trial.failures, "a step failed on a healthy disk"
    operations: list[Operation] = [operation for operation, _path in disk.operations]
    trial.check(disk.copy(), "at the end")
    return operations


def audit_power_cuts(scenario: Scenario, *, draws: int, again: int = 0) -> Audit:
    """Cut the power before each operation and after the last.

    Args:
        scenario: what is run.
        draws: how many random mixtures of what survives are tried at each operation, in addition to
            the four extremes.
        again: at every `again`-th operation, cut the power again at each operation of the recovery;
            0: never.
    """
    points = len(list_operations(scenario))
    openings = 0
    for number in range(points + 1):
        trial = _cut(scenario, number)
        for survival in survivals(number, draws):
            left = trial.disk.after_power_cut(survival)
            trial.check(left, f"left {survival.name}")
            if again and number % again == 0:
                _cut_again(trial, survival)
        trial.disk.restart()
        trial.check_shown(trial.disk)
        openings += trial.openings
    return Audit(points, points + 1, openings)


def _cut(scenario: Scenario, number: int) -> _Trial:
    disk = FaultDisk()
    trial = _Trial(scenario, disk, f"power cut before operation {number}")
    disk.cut_power_at(number)
    try:
        for _ in trial.run():
            pass
        disk.cut_power()
    except PowerCut as cut:
        trial.what = f"power cut {cut}"
    return trial


def _cut_again(trial: _Trial, survival: Survival) -> None:
    """Cut the power at each operation of the recovery from the first cut."""
    number = 0
    while True:
        disk = trial.disk.after_power_cut(survival)
        disk.cut_power_at(number)
        try:
            trial.scenario.make(disk).open()
        except PowerCut as cut:
            for second in survivals(number, 1):
                left = disk.after_power_cut(second)
                trial.check(left, f"left {survival.name}, again {cut}, left {second.name}")
            number += 1
        else:
            return


def audit_faults(
    scenario: Scenario, faults: Sequence[Fault], *, lasting: bool, draws: int, every: int = 1
) -> Audit:
    """Let each operation fail with each fault that applies to it.

    Args:
        scenario: what is run.
        faults: the faults to try.
        lasting: the fault stays until the disk is healed after some tries; else it occurs once.
        draws: how many random mixtures of what survives a power cut are tried after each of the
            steps that follow the fault.
        every: try only every `every`-th operation.
    """
    operations = list_operations(scenario)
    openings = trials = 0
    for fault in faults:
        writes_only = fault in ("short", "torn")
        points = [n for n, name in enumerate(operations) if name == "write" or not writes_only]
        for number in points[::every]:
            disk = FaultDisk()
            disk.fail(number, fault, lasting=lasting)
            trial = _Trial(scenario, disk, f"{fault} at operation {number}")
            # On a disk that fails every operation, a failed batch cannot even be truncated away, so
            # it may show up when the store is opened.
            trial.strict = not (lasting and fault == "EIO")
            _run_and_check(trial, number, draws)
            openings += trial.openings
            trials += 1
    return Audit(len(operations), trials, openings)


def _run_and_check(trial: _Trial, number: int, draws: int) -> None:
    checks_left = 3  # only the first steps after the fault are of interest
    for _ in trial.run():
        if len(trial.disk.operations) <= number or not checks_left:
            continue
        checks_left -= 1
        trial.what = f"{trial.what.partition(' (')[0]} ({trial.disk.operations[number][0]})"
        # After a kill, a batch that failed must have no effect.
        failed, trial.model.in_progress = trial.model.in_progress, None
        if trial.strict or failed is None:
            trial.check(trial.disk.copy(), "killed")
        # After a power cut, it may be there as a whole.
        trial.model.in_progress = failed
        for survival in _few(number, draws):
            trial.check(trial.disk.after_power_cut(survival), f"left {survival.name}")
    # The retries have committed every batch.
    assert trial.model.in_progress is None
    trial.check(trial.disk.copy(), "at the end")
    for survival in _few(number, draws):
        trial.check(trial.disk.after_power_cut(survival), f"at the end, left {survival.name}")


def _few(seed: int, draws: int) -> list[Survival]:
    """Return the harshest extreme and `draws` mixtures."""
    nothing, *_extremes = survivals(seed, 0)
    return [nothing, *survivals(seed, draws)[len(_extremes) + 1 :]]
