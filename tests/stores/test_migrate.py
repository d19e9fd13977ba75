"""A store can be copied into an empty one of another kind."""

import errno
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.memory import Memory, MemoryStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.commands.migrate import BATCH_RECORDS, migrate
from distconvd.errors import StoreError
from distconvd.store import TABLES, Change, Store
from distconvd.testing.store_suite import ODD_KEYS, commit, contents, put

SOME = [put(key, table, n=n) for table in TABLES for n, key in enumerate(ODD_KEYS)]


def makers(tmp_path: Path) -> dict[str, tuple[Store, Store]]:
    memory = Memory()
    return {
        "json": (JsonStore(tmp_path / "a.json"), JsonStore(tmp_path / "a.json")),
        "spool": (SpoolStore(tmp_path / "b"), SpoolStore(tmp_path / "b")),
        "memory": (MemoryStore(memory), MemoryStore(memory)),
    }


async def memory_with(changes: list[Change]) -> MemoryStore:
    memory = Memory()
    await commit(lambda: MemoryStore(memory), changes)
    return MemoryStore(memory)


@pytest.mark.parametrize("kind", ["json", "spool", "memory"])
async def test_everything_arrives_in_order(kind: str, tmp_path: Path) -> None:
    target, reopened = makers(tmp_path)[kind]
    source = await memory_with(SOME)
    report = await migrate(source, target, reopened)
    assert (report.jobs, report.engines, report.attempts, report.meta) == (len(ODD_KEYS),) * 4
    assert str(report).startswith(f"{len(ODD_KEYS)} jobs, ")
    copied = await contents(lambda: makers(tmp_path)[kind][0] if kind != "memory" else reopened)
    original = await contents(lambda: source)
    assert [list(table.items()) for table in copied] == [list(t.items()) for t in original]


async def test_there_and_back_again_is_the_same_state_file(tmp_path: Path) -> None:
    first, second, tree = tmp_path / "first.json", tmp_path / "second.json", tmp_path / "tree"
    await commit(lambda: JsonStore(first), SOME)
    await migrate(JsonStore(first), SpoolStore(tree), SpoolStore(tree))
    await migrate(SpoolStore(tree), JsonStore(second), JsonStore(second))
    *lines, _position, _brace = first.read_text().splitlines()
    assert second.read_text().splitlines()[:-2] == lines


async def test_many_records_go_in_several_batches() -> None:
    source = await memory_with([put(f"job-{n}", n=n) for n in range(BATCH_RECORDS + 1)])
    memory = Memory()
    target = MemoryStore(memory)
    await migrate(source, target, MemoryStore(memory))
    assert target.commits == 2


async def test_a_target_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "state.json"
    await commit(lambda: JsonStore(place), [put("mine", v=1), put("e", "engines", v=1)])
    with pytest.raises(StoreError, match=r"not empty .*1 job, 1 engine"):
        await migrate(await memory_with(SOME), JsonStore(place), JsonStore(place))
    assert list((await contents(lambda: JsonStore(place))).jobs) == ["mine"]


async def test_a_target_that_keeps_something_else_is_reported(tmp_path: Path) -> None:
    other = await memory_with([put("a", v=1), put("b", v=2)])
    source = await memory_with([put("a", v=1), put("b", v=1)])
    with pytest.raises(StoreError, match="of jobs, 1 record differs"):
        await migrate(source, MemoryStore(), other)


async def test_a_disk_that_fills_up_is_reported_with_a_remedy() -> None:
    target = MemoryStore()
    target.fail_next(OSError(errno.ENOSPC, "No space left on device"))
    source = await memory_with(SOME)
    with pytest.raises(StoreError, match=r"half-way: .*No space.*empty the target"):
        await migrate(source, target, MemoryStore())
    assert len((await contents(lambda: source)).jobs) == len(ODD_KEYS)
