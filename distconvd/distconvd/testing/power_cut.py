"""Enumerates what a disk can do to a store, and audits what the store makes of it.

A `Scenario` is a way to open a store on a `FaultDisk` and a script of batches and other steps. It
is run once to number its disk operations, and then again for each of them: with a fault there
(`audit_faults`), or with the power gone there (`audit_power_cuts`). Whatever is left is opened
again on a healthy disk, and must be exactly what was acknowledged, with the batch that was under
way whole or absent: nothing lost, nothing half, nothing invented, and in the right order.

The script runs in one thread and in a fixed order, so the numbers mean the same in every run. A
store with threads of its own is tested by what these threads call, step by step (`Subject.step`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from distconvd.errors import StoreError
from distconvd.store import Change, Snapshot
from distconvd.testing.faultdisk import Fault, FaultDisk, Operation, PowerCut, Survival, survivals

Step = Sequence[Change] | str
"""A batch to commit; or `close`, `open`, `kill` (the process ends without closing), or a name that
the subject knows."""

TRIES = 6
"""How often a refused batch is tried again; a lasting fault is healed half-way."""


class Subject(Protocol):
    """A store as plain calls that block."""

    def open(self) -> Snapshot:
        """Lock, recover and read."""
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Commit a batch."""
        ...

    def step(self, name: str) -> None:
        """Do something of its own, such as a part of a compaction."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Scenario(NamedTuple):
    """What is tested.

    Attributes:
        make: makes a subject on a disk, not opened.
        steps: the script; opening comes before it by itself.
        damage: done to what a power cut left, before it is opened; for what a store claims to
            survive over and above.
    """

    make: Callable[[FaultDisk], Subject]
    steps: Sequence[Step]
    damage: Callable[[FaultDisk], None] | None = None


class Audit(NamedTuple):
    """How much was tried.

    Attributes:
        points: disk operations in the script.
        trials: runs of the script.
        openings: states of the disk that were opened and compared.
    """

    points: int
    trials: int
    openings: int


Contents = list[list[tuple[str, bytes]]]
"""The tables in order, with their records in order, so that order is compared too."""


def contents_of(snapshot: Snapshot) -> Contents:
    """Return what is compared."""
    return [list(table.items()) for table in snapshot]


class _Model:
    """What the store has to hold: what was acknowledged, and perhaps the batch under way."""

    def __init__(self) -> None:
        self.acknowledged = Snapshot({}, {}, {}, {})
        self.under_way: Sequence[Change] | None = None

    def allowed(self) -> list[Contents]:
        states = [self.acknowledged]
        if self.under_way is not None:
            states.append(_after(self.acknowledged, self.under_way))
        return [contents_of(state) for state in states]

    def acknowledge(self, changes: Sequence[Change]) -> None:
        self.acknowledged = _after(self.acknowledged, changes)
        self.under_way = None


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
        refused: how many calls have failed so far.
        openings: how many states were compared.
        strict: a refused batch must be gone at once, if there is power.
    """

    def __init__(self, scenario: Scenario, disk: FaultDisk, what: str) -> None:
        self.scenario = scenario
        self.disk = disk
        self.what = what
        self.model = _Model()
        self.refused = 0
        self.openings = 0
        self.strict = True
        self.subject = scenario.make(disk)

    def run(self) -> Iterator[None]:
        """Run the script, stopping after each step, and after each refused try of one."""
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
                self.refused += 1
                yield
        raise AssertionError(f"{self.what}: refused on a healthy disk")

    def _open(self) -> None:
        self.subject = self.scenario.make(self.disk)
        self._compare(self.subject.open(), self.what)

    def _commit(self, batch: Sequence[Change]) -> None:
        self.model.under_way = batch
        self.subject.commit(batch)
        self.model.acknowledge(batch)

    def _other(self, step: str) -> None:
        try:
            self.subject.step(step)
        except OSError:
            self.refused += 1

    # --------------------------------------------------------------------------------- comparing

    def check(self, disk: FaultDisk, what: str) -> Snapshot:
        """Open what is on a disk, compare it, and see that the store goes on from there."""
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
        """After a kill, see that what the store shows is durable, before anything else is done."""
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
    """Run the script on a healthy disk and return which operations it makes."""
    disk = FaultDisk()
    trial = _Trial(scenario, disk, "healthy")
    for _ in trial.run():
        assert not trial.refused, "a healthy disk, and yet a failure"
    operations: list[Operation] = [operation for operation, _path in disk.operations]
    trial.check(disk.copy(), "at the end")
    return operations


def audit_power_cuts(scenario: Scenario, *, draws: int, again: int = 0) -> Audit:
    """Cut the power before each operation and after the last.

    Args:
        scenario: what is run.
        draws: how many mixtures of what survives are tried at each, besides the four extremes.
        again: at every so many-th operation, cut the power again at each operation of recovering;
            0: nowhere.
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
    """Cut the power at each operation of recovering from the first cut."""
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
    """Let each operation fail that can, with each fault.

    Args:
        scenario: what is run.
        faults: which faults.
        lasting: the fault stays until the disk is healed after some tries; else it strikes once.
        draws: how many mixtures of what survives a power cut are tried after each of the steps
            that follow the fault.
        every: take only every so many-th operation.
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
            # A disk that takes nothing at all, not even a cut, may show what it refused.
            trial.strict = not (lasting and fault == "EIO")
            _run_and_check(trial, number, draws)
            openings += trial.openings
            trials += 1
    return Audit(len(operations), trials, openings)


def _run_and_check(trial: _Trial, number: int, draws: int) -> None:
    looks = 3
    for _ in trial.run():
        if len(trial.disk.operations) <= number or not looks:
            continue
        looks -= 1
        trial.what = f"{trial.what.partition(' (')[0]} ({trial.disk.operations[number][0]})"
        refused, trial.model.under_way = trial.model.under_way, None
        if trial.strict or refused is None:
            trial.check(trial.disk.copy(), "killed")
        trial.model.under_way = refused
        for survival in _few(number, draws):
            trial.check(trial.disk.after_power_cut(survival), f"left {survival.name}")
    assert trial.model.under_way is None
    trial.check(trial.disk.copy(), "at the end")
    for survival in _few(number, draws):
        trial.check(trial.disk.after_power_cut(survival), f"at the end, left {survival.name}")


def _few(seed: int, draws: int) -> list[Survival]:
    """Return the harshest extreme and `draws` mixtures."""
    nothing, *_extremes = survivals(seed, 0)
    return [nothing, *survivals(seed, draws)[len(_extremes) + 1 :]]
