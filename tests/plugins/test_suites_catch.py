"""The conformance suites catch mistakes that a plugin's author may not notice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from distconv_plugins.stores.json_store.store import JsonStore
from distconvd.auth import missing_key, wrong_key
from distconvd.dispatch import Event
from distconvd.edge.http import Principal
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place
from distconvd.store import Change
from distconvd.testing.authenticator_suite import AuthenticatorSuite
from distconvd.testing.listener_suite import ListenerSuite
from distconvd.testing.policy_suite import PolicySuite
from distconvd.testing.store_suite import StoreSuite

Caught = (AssertionError, pytest.fail.Exception)

# -------------------------------------------------------------------------------------- policies


class Fair:
    """A correct one, as the base of the faulty ones."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        return Place(next(iter(engines)).engine_id, "the first")


class Starves(Fair):
    """It never places a large job."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        return Hold("too large") if job.job_size > 1000 else super().place(job, engines, now_ms)


class Tires(Fair):
    """It places a thousand jobs and no more."""

    count = 0

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        self.count += 1
        return Hold("enough") if self.count > 1000 else super().place(job, engines, now_ms)


class Clings(Fair):
    """It places a job on the engine of the last decision, which is busy by now."""

    last: Place | Hold | None = None

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        chosen, self.last = self.last, super().place(job, engines, now_ms)
        return chosen or self.last


class Scribbles(Fair):
    """It changes the job."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        job.labels["seen"] = "yes"
        return super().place(job, engines, now_ms)


class Hoards(Fair):
    """It iterates over all jobs that it has ever seen."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        self.seen.append(job.job_id)
        assert all(len(one) > 1 for one in self.seen * 4)
        return super().place(job, engines, now_ms)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, test",
    [
        (Starves, PolicySuite.test_no_job_is_on_hold_at_every_hour_of_the_week),
        (Tires, PolicySuite.test_a_plain_job_is_still_placed_after_thousands_of_others),
        (
            Clings,
            PolicySuite.test_every_answer_is_an_available_engine_or_a_hold_with_a_reason,
        ),
        (Scribbles, PolicySuite.test_a_decision_does_not_change_the_job),
        pytest.param(
            Hoards,
            PolicySuite.test_decisions_do_not_become_slower_with_the_number_of_jobs,
            marks=pytest.mark.alone,
        ),
    ],
)
def test_a_bad_policy_is_caught(policy: type[Fair], test: Callable[..., None]) -> None:
    test(PolicySuite(), Fair())
    with pytest.raises(Caught):
        test(PolicySuite(), policy())


# ---------------------------------------------------------------------------------- authenticators

KEY = "0123456789abcdef-anna"


class Careful:
    """A correct one, as the base of the faulty ones."""

    def is_good(self, key: str, peer: str) -> bool:
        return key == KEY

    def authenticate(self, key: str | None, peer: str) -> Principal:
        if key is None:
            raise missing_key()
        if not self.is_good(key, peer):
            raise wrong_key()
        return Principal("anna", frozenset({"read"}))


class TakesPrefix(Careful):
    """It accepts the first half of a key."""

    def is_good(self, key: str, peer: str) -> bool:
        return key in (KEY, KEY[:10])


class LooksAtTheEnds(Careful):
    """It ignores the middle of a key."""

    def is_good(self, key: str, peer: str) -> bool:
        return (len(key), key[:8], key[-8:]) == (len(KEY), KEY[:8], KEY[-8:])


class TrustsNeighbours(Careful):
    """It accepts any key from an address that has sent a valid one."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def is_good(self, key: str, peer: str) -> bool:
        if super().is_good(key, peer):
            self.known.add(peer)
        return peer in self.known


class Keyed(AuthenticatorSuite):
    good_keys = {KEY: frozenset({"read"})}


@pytest.mark.parametrize(
    "authenticator, test",
    [
        (TakesPrefix, Keyed.test_a_part_of_a_key_is_wrong),
        (LooksAtTheEnds, Keyed.test_every_character_of_a_key_counts),
        (
            TrustsNeighbours,
            Keyed.test_neither_an_address_nor_an_earlier_caller_replaces_the_key,
        ),
    ],
)
def test_a_bad_authenticator_is_caught(
    authenticator: type[Careful], test: Callable[..., None]
) -> None:
    test(Keyed(), Careful())
    with pytest.raises(Caught):
        test(Keyed(), authenticator())


# -------------------------------------------------------------------------------------- listeners


class Quiet:
    """A correct one, as the base of the faulty ones."""

    def on_event(self, event: Event) -> None:
        pass

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


class Grows(Quiet):
    """It keeps all events without a bound."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


class RunsOnce(Quiet):
    """It cannot be run again after a fault."""

    has_run = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        assert not self.has_run
        self.has_run = True
        await super().run(task_status=task_status)


@pytest.mark.parametrize(
    "listener, test",
    [
        (Grows, ListenerSuite.test_the_events_that_it_keeps_are_bounded),
        (RunsOnce, ListenerSuite.test_a_service_can_be_run_again),
    ],
)
def test_a_bad_listener_is_caught(listener: type[Quiet], test: Callable[..., None]) -> None:
    test(ListenerSuite(), Quiet())
    with pytest.raises((*Caught, ExceptionGroup)):
        test(ListenerSuite(), listener())


# ----------------------------------------------------------------------------------------- stores


class WritesLater(JsonStore):
    """It acknowledges immediately, and writes when it is closed."""

    later: tuple[Change, ...] = ()

    async def commit(self, changes: Sequence[Change]) -> None:
        self.later = (*self.later, *changes)

    async def aclose(self) -> None:
        if self.later:
            later, self.later = self.later, ()
            await super().commit(later)
        await super().aclose()


class WritesInPieces(JsonStore):
    """It commits each change of a batch on its own."""

    async def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            await super().commit([change])


class LosesTheLast(JsonStore):
    """It does not write the last change of a batch."""

    async def commit(self, changes: Sequence[Change]) -> None:
        await super().commit(changes[:-1] or changes)


class MixesTables(JsonStore):
    """It deletes a key from every table."""

    async def commit(self, changes: Sequence[Change]) -> None:
        tables: tuple[Any, ...] = ("jobs", "engines", "attempts", "meta")
        gone = [change._replace(table=t) for change in changes if not change.record for t in tables]
        await super().commit([*changes, *gone])


TRIES = 20
"""A kill may come between two batches, where nothing is torn; but hardly this often."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "store, test",
    [
        (WritesLater, StoreSuite.test_acknowledged_records_survive_a_kill),
        (
            WritesInPieces,
            StoreSuite.test_a_kill_at_any_moment_leaves_what_was_acknowledged_and_no_part_of_a_batch,
        ),
        (LosesTheLast, StoreSuite.test_a_batch_of_a_thousand_records_is_kept),
        (MixesTables, StoreSuite.test_a_delete_affects_only_its_own_table),
    ],
)
def test_a_bad_store_is_caught(
    store: type[JsonStore], test: Callable[..., None], tmp_path: Path
) -> None:
    test(StoreSuite(), lambda: JsonStore(tmp_path / "good.json"))

    def tried() -> None:
        for number in range(TRIES):
            test(StoreSuite(), lambda at=tmp_path / f"bad-{number}.json": store(at))

    with pytest.raises(Caught):
        tried()
