"""Test a store: inherit from `StoreSuite` and provide a fixture that opens yours.

    from distconvd.testing.store_suite import OpenStore, StoreSuite

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path: Path) -> OpenStore:
            return lambda: MyStore(tmp_path / "place")

        @contextmanager
        def failing(self) -> Iterator[None]:     # only where a test can make your disk fail
            ...

`open_store` makes a new store object of the same path each time it is called within one test; each
test has its own path. The tests are plain functions that run trio themselves, so no pytest plugin is
needed. A `kill -9` is tested here; for power cuts see `distconvd.testing.faultdisk`.
"""

# ruff: noqa: D102 (a test's name is its sentence)

import functools
import itertools
import json
import os
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NoReturn, ParamSpec

import pytest
import trio

from distconvd.errors import StoreError, StoreLocked
from distconvd.store import TABLES, Change, Snapshot, Store, Table

OpenStore = Callable[[], Store]
"""Makes a store object of the path under test, not loaded yet."""

ODD_KEYS = [
    "plain-1",
    "1754000000000000_17",
    "UPPER",
    "upper",
    "with space",
    "a/b/../c",
    "..",
    ".hidden",
    'quote"and\\backslash',
    "new\nline",
    "nul\0byte",
    "ünïcödé",
    "日本語",
    "🎬",
    "percent%2Fescape",
    "x" * 4096,
    "x" * 4095 + "y",
    "name.json",
    "con",
    "-rf",
    "~",
]
"""Keys that may trip a file system, a format or a shell."""

BATCH = 20
"""Changes in a batch of the tests that kill the process."""

_P = ParamSpec("_P")


def in_trio(test: Callable[_P, Awaitable[None]]) -> Callable[_P, None]:
    """Turn an async test into a plain one."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                await test(*args, **kwargs)

        trio.run(main)

    return run


def record(**fields: Any) -> bytes:
    """Return a record as the ledger makes them: compact JSON in UTF-8."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def put(key: str, table: Table = "jobs", **fields: Any) -> Change:
    """Return a change that puts a record of these fields."""
    return Change(table, key, record(**fields))


def delete(key: str, table: Table = "jobs") -> Change:
    """Return a change that deletes a record."""
    return Change(table, key, None)


async def contents(open_store: OpenStore) -> Snapshot:
    """Open the store, read it, and close it."""
    store = open_store()
    snapshot = await store.load()
    await store.aclose()
    return snapshot


async def commit(open_store: OpenStore, *batches: list[Change]) -> None:
    """Open the store, commit batches one by one, and close it."""
    store = open_store()
    await store.load()
    for batch in batches:
        await store.commit(batch)
    await store.aclose()


def _forked(main: Callable[[], Awaitable[None]]) -> int:
    """Run something in a copy of this process and return its id; it exits with 1 if it returns."""
    with warnings.catch_warnings():
        # Python warns of forking with threads; the child does not use them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            trio.run(main)
        except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def _exit_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def _commit_forever(open_store: OpenStore, first: int, progress_fd: int) -> NoReturn:
    """Commit batch after batch, and write a byte for each that is acknowledged."""
    store = open_store()
    await store.load()
    for n in itertools.count(first):
        await store.commit([put(f"{n}-{each}", v=n) for each in range(BATCH)])
        os.write(progress_fd, b".")
    raise AssertionError("the loop never ends")


class StoreSuite:
    """Inherit, name the class `Test…`, and override `open_store` (see the module)."""

    outlives_its_process: ClassVar[bool] = True
    """False for a store in memory, which is useful for tests only."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return a function that makes store objects of one path."""
        raise NotImplementedError("override the fixture open_store")

    def failing(self) -> AbstractContextManager[None]:
        """Let commits fail within the block; unless this is overridden, tests that need it are skipped."""
        pytest.skip("this store has no way to let a commit fail")

    # ------------------------------------------------------------------------------ what is kept

    @in_trio
    async def test_a_new_store_is_empty(self, open_store: OpenStore) -> None:
        assert await contents(open_store) == ({}, {}, {}, {})

    @in_trio
    async def test_each_table_keeps_its_own_records(self, open_store: OpenStore) -> None:
        await commit(open_store, [put("same", table, of=table) for table in TABLES])
        for table, records in zip(TABLES, await contents(open_store), strict=True):
            assert records == {"same": record(of=table)}

    @in_trio
    async def test_a_delete_affects_only_its_own_table(self, open_store: OpenStore) -> None:
        for table in TABLES:
            await commit(open_store, [put("same", other, of=other) for other in TABLES])
            await commit(open_store, [delete("same", table)])
            left = dict(zip(TABLES, await contents(open_store), strict=True))
            wanted: dict[Table, dict[str, bytes]] = {
                other: {"same": record(of=other)} for other in TABLES
            }
            assert left == wanted | {table: {}}

    @in_trio
    async def test_records_come_back_byte_by_byte(self, open_store: OpenStore) -> None:
        fields: dict[str, Any] = {
            "text": 'é 日本 🎬 "\\ \n \u2028 \x7f',
            "number": 1.5e-7,
            "integer": 2**53 - 1,
            "deep": [[[{"a": [None, True, False]}]]],
            "": {},
        }
        await commit(open_store, [put("job", **fields)])
        assert (await contents(open_store)).jobs["job"] == record(**fields)

    @in_trio
    async def test_any_valid_json_formatting_is_accepted(self, open_store: OpenStore) -> None:
        spelt = b'{\n\t"a" : [ 1 ,\r\n 2 ], "b": "\\u00e9\\/" }'
        await commit(open_store, [Change("jobs", "job", spelt)], [put("other", n=1)])
        jobs = (await contents(open_store)).jobs
        assert json.loads(jobs["job"]) == json.loads(spelt)
        assert jobs["other"] == record(n=1)

    @in_trio
    async def test_a_later_put_replaces(self, open_store: OpenStore) -> None:
        await commit(open_store, [put("job", v=1)], [put("job", v=2)], [put("job", v=3)])
        assert (await contents(open_store)).jobs == {"job": record(v=3)}

    @in_trio
    async def test_a_delete_removes(self, open_store: OpenStore) -> None:
        await commit(open_store, [put("a", v=1), put("b", v=1)], [delete("a")])
        assert (await contents(open_store)).jobs == {"b": record(v=1)}

    @in_trio
    async def test_deleting_a_missing_record_is_not_an_error(self, open_store: OpenStore) -> None:
        await commit(open_store, [delete("a"), delete("b", "meta")], [put("a", v=1)])
        assert (await contents(open_store)).jobs == {"a": record(v=1)}

    @in_trio
    async def test_within_a_batch_the_last_change_wins(self, open_store: OpenStore) -> None:
        await commit(
            open_store,
            [put("a", v=1), delete("a"), put("a", v=2), put("b", v=1), delete("b")],
            [delete("a"), put("a", v=3)],
        )
        assert (await contents(open_store)).jobs == {"a": record(v=3)}

    @in_trio
    async def test_odd_keys_are_distinguished(self, open_store: OpenStore) -> None:
        await commit(open_store, [put(key, n=n) for n, key in enumerate(ODD_KEYS)])
        jobs = (await contents(open_store)).jobs
        assert jobs == {key: record(n=n) for n, key in enumerate(ODD_KEYS)}

    @in_trio
    async def test_a_record_of_a_megabyte_is_kept(self, open_store: OpenStore) -> None:
        await commit(open_store, [put("big", text="x" * 1_000_000), put("small", v=1)])
        jobs = (await contents(open_store)).jobs
        assert len(jobs["big"]) > 1_000_000
        assert jobs["small"] == record(v=1)

    @in_trio
    async def test_a_batch_of_a_thousand_records_is_kept(self, open_store: OpenStore) -> None:
        await commit(open_store, [put(f"job-{n}", n=n) for n in range(1000)])
        assert len((await contents(open_store)).jobs) == 1000

    @in_trio
    async def test_an_empty_batch_changes_nothing(self, open_store: OpenStore) -> None:
        await commit(open_store, [], [put("a", v=1)], [])
        assert (await contents(open_store)).jobs == {"a": record(v=1)}

    # ------------------------------------------------------------------------------------- order

    @in_trio
    async def test_records_keep_the_order_of_their_first_put(self, open_store: OpenStore) -> None:
        keys = ["m", "z", "a", "k", "0", "Z", "b"]
        await commit(open_store, *([put(key, v=1)] for key in keys), [put("a", v=2)])
        await commit(open_store, [put("later", v=1)], [put("m", v=2)])
        assert list((await contents(open_store)).jobs) == [*keys, "later"]

    @in_trio
    async def test_a_record_put_again_after_a_delete_is_last(self, open_store: OpenStore) -> None:
        await commit(
            open_store, [put("a", v=1), put("b", v=1), put("c", v=1)], [delete("a")], [delete("c")]
        )
        await commit(open_store, [put("a", v=2)], [delete("b"), put("b", v=2)], [put("c", v=2)])
        assert list((await contents(open_store)).jobs) == ["a", "b", "c"]
        await commit(open_store, [delete("a"), put("a", v=3)])
        assert list((await contents(open_store)).jobs) == ["b", "c", "a"]

    # ---------------------------------------------------------------------------------- reopening

    @in_trio
    async def test_records_survive_many_openings(self, open_store: OpenStore) -> None:
        for n in range(10):
            await commit(open_store, [put(f"job-{n}", n=n)], [put("engine", "engines", n=n)])
        snapshot = await contents(open_store)
        assert list(snapshot.jobs) == [f"job-{n}" for n in range(10)]
        assert snapshot.engines == {"engine": record(n=9)}

    @in_trio
    async def test_the_snapshot_is_the_callers_own(self, open_store: OpenStore) -> None:
        await commit(open_store, [put("a", v=1)])
        store = open_store()
        snapshot = await store.load()
        snapshot.jobs.clear()
        snapshot.engines["mine"] = b"{}"
        await store.commit([put("b", v=1)])
        await store.aclose()
        assert await contents(open_store) == ({"a": record(v=1), "b": record(v=1)}, {}, {}, {})

    @in_trio
    async def test_a_second_open_fails_because_the_store_is_in_use(
        self, open_store: OpenStore
    ) -> None:
        store = open_store()
        await store.load()
        with pytest.raises(StoreLocked) as raised:
            await open_store().load()
        assert len(str(raised.value)) > 20, "the message says what to do"
        await store.commit([put("a", v=1)])
        await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1)}

    @in_trio
    async def test_a_failed_second_open_harms_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        await store.load()
        second = open_store()
        with pytest.raises(StoreLocked):
            await second.load()
        await second.aclose()
        with pytest.raises(StoreLocked):
            await open_store().load()
        await store.aclose()

    @in_trio
    async def test_closing_twice_is_not_an_error(self, open_store: OpenStore) -> None:
        store = open_store()
        await store.load()
        await store.commit([put("a", v=1)])
        await store.aclose()
        await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1)}

    # ------------------------------------------------------------------------------- being stopped

    @in_trio
    async def test_a_commit_that_is_cancelled_is_whole_or_absent(
        self, open_store: OpenStore
    ) -> None:
        store = open_store()
        await store.load()
        batch = [put(f"job-{n}", n=n) for n in range(50)]
        done = False
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(batch)
            done = True
        await store.commit([put("after", v=1)])
        await store.aclose()
        jobs = (await contents(open_store)).jobs
        assert len(jobs) == 51 if done else len(jobs) in (1, 51)

    @in_trio
    async def test_a_commit_that_is_cancelled_in_the_middle_is_whole_or_absent(
        self, open_store: OpenStore
    ) -> None:
        async def cancel_after(checkpoints: int, scope: trio.CancelScope) -> None:
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        store = open_store()
        await store.load()
        for n in range(8):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, n, nursery.cancel_scope)
                await store.commit([put(f"{n}-{each}", v=1) for each in range(20)])
        await store.aclose()
        jobs = (await contents(open_store)).jobs
        for n in range(8):
            assert sum(key.startswith(f"{n}-") for key in jobs) in (0, 20)

    @in_trio
    async def test_closing_works_while_being_cancelled(self, open_store: OpenStore) -> None:
        store = open_store()
        await store.load()
        await store.commit([put("a", v=1)])
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1)}

    # --------------------------------------------------------------------------------- being killed

    def test_acknowledged_records_survive_a_kill(self, open_store: OpenStore) -> None:
        self._require_durability()

        async def commit_and_die() -> None:
            store = open_store()
            await store.load()
            for n in range(3):
                await store.commit([put(f"{n}-{each}", v=n) for each in range(10)])
            os.kill(os.getpid(), signal.SIGKILL)

        assert _exit_of(_forked(commit_and_die)) == -signal.SIGKILL
        jobs = trio.run(contents, open_store).jobs
        assert list(jobs) == [f"{n}-{each}" for n in range(3) for each in range(10)]

    def test_a_kill_at_any_moment_leaves_what_was_acknowledged_and_no_part_of_a_batch(
        self, open_store: OpenStore
    ) -> None:
        self._require_durability()
        first = 0
        for acknowledged_at_least in (1, 2, 3, 5, 8):
            read_fd, progress_fd = os.pipe()
            child = _forked(functools.partial(_commit_forever, open_store, first, progress_fd))
            os.close(progress_fd)
            with os.fdopen(read_fd, "rb") as pipe:
                pipe.read(acknowledged_at_least)
                os.kill(child, signal.SIGKILL)
                acknowledged = acknowledged_at_least + len(pipe.read())
            assert _exit_of(child) == -signal.SIGKILL, "a commit failed"
            jobs = trio.run(contents, open_store).jobs
            found = Counter(int(key.partition("-")[0]) for key in jobs)
            whole = first + acknowledged
            assert all(found[n] == BATCH for n in range(whole)), "acknowledged, and lost"
            assert found[whole] in (0, BATCH), "a batch was torn"
            assert max(found) <= whole, "more came after one that was not acknowledged"
            first = whole + (found[whole] == BATCH)

    def _require_durability(self) -> None:
        if not self.outlives_its_process:
            pytest.skip("the store is in memory (outlives_its_process is False)")

    # -------------------------------------------------------------------------------------- faults

    @in_trio
    async def test_a_commit_that_fails_changes_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        await store.load()
        await store.commit([put("a", v=1), put("b", v=1)])
        with self.failing(), pytest.raises((OSError, StoreError)):
            await store.commit([put("a", v=2), delete("b"), put("c", v=2)])
        await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1), "b": record(v=1)}

    @in_trio
    async def test_after_a_failure_the_next_commit_works(self, open_store: OpenStore) -> None:
        store = open_store()
        await store.load()
        await store.commit([put("a", v=1)])
        for _ in range(5):
            with self.failing(), pytest.raises((OSError, StoreError)):
                await store.commit([put("refused", v=1)])
        await store.commit([])
        await store.commit([put("b", v=1)])
        await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1), "b": record(v=1)}

    @in_trio
    async def test_a_store_closed_while_failing_keeps_what_it_has(
        self, open_store: OpenStore
    ) -> None:
        store = open_store()
        await store.load()
        await store.commit([put("a", v=1)])
        with self.failing():
            with pytest.raises((OSError, StoreError)):
                await store.commit([put("a", v=2)])
            await store.aclose()
        assert (await contents(open_store)).jobs == {"a": record(v=1)}
