"""The spool store's tree has the documented layout, and an unfinished batch is finished.

Power cuts and faults are in `test_power_cut.py`.
"""

import errno
import json
from pathlib import Path

import pytest

from distconv_plugins.stores.spool_store.files import SpoolFiles
from distconv_plugins.stores.spool_store.names import Tree
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.errors import StoreError, StoreTooNew
from distconvd.testing.faultdisk import FaultDisk
from distconvd.testing.store_suite import ODD_KEYS, commit, contents, put, record

ROOT = Path("/state")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "state"


def record_files(top: Path) -> dict[str, object]:
    return {path.name: json.loads(path.read_bytes()) for path in top.glob("*/*/*.json")}


async def test_a_record_is_a_readable_file_in_a_shard_of_its_table(top: Path) -> None:
    await commit(lambda: SpoolStore(top), [put("1754_1", n=1), put("engine-1", "engines", n=2)])
    (path,) = (top / "jobs").glob("*/*")
    assert (path.name, len(path.parent.name)) == ("1754_1.json", 2)
    assert json.loads(path.read_bytes()) == {
        "seq": 1,
        "batch": 1,
        "key": "1754_1",
        "record": {"n": 1},
    }
    assert [path.name for path in (top / "engines").glob("*/*")] == ["engine-1.json"]
    assert list((top / "tmp").iterdir()) == []
    assert json.loads((top / "format.json").read_bytes()) == {"format": 1, "store": "spool"}


def test_names_are_short_plain_and_differ_by_more_than_case() -> None:
    tree = Tree(ROOT)
    paths = [tree.record("jobs", key) for key in ODD_KEYS]
    names = [path.name.lower() for path in paths]
    assert len({str(path).lower() for path in paths}) == len(ODD_KEYS)
    assert max(map(len, names)) < 130
    assert all(path.parents[2] == ROOT for path in paths)
    assert set("".join(names)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.~")


def test_a_thousand_jobs_spread_over_many_directories() -> None:
    tree = Tree(ROOT)
    shards = {tree.record("jobs", f"1754000000000000_{n}").parent for n in range(1000)}
    assert len(shards) > 240


async def test_a_batch_syncs_each_file_once_and_each_directory_once() -> None:
    disk = FaultDisk()
    files = SpoolFiles(disk, ROOT)
    files.open()
    keys = [f"job-{n}" for n in range(40)]
    files.commit([put(key, n=1) for key in keys])
    before = len(disk.operations)
    files.commit([put(key, n=2) for key in keys])
    operations = disk.operations[before:]
    shards = {Tree(ROOT).record("jobs", key).parent for key in keys}
    assert sum(name == "fsync" for name, _path in operations) == len(keys) + 1
    assert sum(name == "fsync_dir" for name, _path in operations) == len(shards) + 1


async def test_a_file_that_is_not_a_record_is_kept_aside(
    top: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(lambda: SpoolStore(top), [put("good", n=1), put("bad", n=1), put("moved", n=1)])
    (bad,) = top.glob("jobs/*/bad.json")
    bad.write_text('{"seq": 1')
    (moved,) = top.glob("jobs/*/moved.json")
    moved.rename(moved.with_name("elsewhere.json"))
    assert (await contents(lambda: SpoolStore(top))).jobs == {"good": record(n=1)}
    kept = {path.name for path in (top / "corrupt").iterdir()}
    assert kept == {"jobs-bad.json", "jobs-elsewhere.json"}
    assert "bad.json is not a record" in caplog.text


async def test_corrupt_files_are_reported_until_they_are_acknowledged(top: Path) -> None:
    await commit(lambda: SpoolStore(top), [put("good", n=1), put("bad", n=1), put("Bad", n=1)])
    for path in top.glob("jobs/*/bad*.json"):
        path.write_text("{")
    for _start in range(2):
        store = SpoolStore(top)
        await store.load()
        assert [damage.touched for damage in store.damage] == [(("jobs", "bad"),), ()]
        assert all("corrupt/jobs-bad" in damage.text for damage in store.damage)
        await store.aclose()
    store = SpoolStore(top)
    await store.load()
    await store.acknowledge_damage()
    assert store.damage == []
    await store.aclose()
    store = SpoolStore(top)
    await store.load()
    assert store.damage == []
    await store.aclose()
    assert len(list((top / "corrupt").glob("jobs-bad*.acknowledged"))) == 2


def test_a_batch_whose_manifest_is_damaged_is_kept_and_reported() -> None:
    disk = FaultDisk()
    files = SpoolFiles(disk, ROOT)
    files.open()
    files.commit([put("a", n=1)])
    disk.put(ROOT / "tmp" / "2.batch", b'[["jobs","b",tru')
    disk.put(ROOT / "tmp" / "2-0.json", b'{"seq":2,"batch":2,"key":"b","record":{}}')
    disk.restart()
    again = SpoolFiles(disk, ROOT)
    assert list(again.open().jobs) == ["a"]
    assert len(again.damage) == 2
    assert {path.name for path in disk.files() if path.parent.name == "corrupt"} == {
        "tmp-2.batch",
        "tmp-2-0.json",
    }


async def test_a_record_that_a_person_has_edited_loads(top: Path) -> None:
    await commit(lambda: SpoolStore(top), [put("a", n=1)])
    (path,) = top.glob("jobs/*/a.json")
    document = json.loads(path.read_bytes())
    document["record"]["n"] = 2
    path.write_text(json.dumps(document, indent=4))
    jobs = (await contents(lambda: SpoolStore(top))).jobs
    assert json.loads(jobs["a"]) == {"n": 2}


async def test_a_directory_of_something_else_is_refused_and_left_alone(top: Path) -> None:
    top.mkdir()
    (top / "holiday.jpg").write_text("!")
    with pytest.raises(StoreError, match=r"not a spool store's \('holiday.jpg'\)"):
        await SpoolStore(top).load()
    assert [path.name for path in top.iterdir()] == ["holiday.jpg"]


async def test_a_newer_format_is_refused(top: Path) -> None:
    await commit(lambda: SpoolStore(top), [put("a", n=1)])
    (top / "format.json").write_text('{"format": 3, "store": "spool", "shards": 4096}')
    with pytest.raises(StoreTooNew, match="has format 3, and this version supports up to 1; start"):
        await SpoolStore(top).load()


async def test_a_format_that_cannot_be_read_is_reported_with_a_remedy(top: Path) -> None:
    await commit(lambda: SpoolStore(top), [put("a", n=1)])
    (top / "format.json").write_text("")
    with pytest.raises(StoreError, match=r'write \{"format":1\} to it'):
        await SpoolStore(top).load()


async def test_a_file_in_place_of_the_directory_is_reported_with_a_remedy(top: Path) -> None:
    top.write_text("")
    with pytest.raises(StoreError, match="must be writable"):
        await SpoolStore(top).load()


def test_a_batch_that_counts_but_cannot_be_placed_is_placed_later() -> None:
    disk = FaultDisk()
    files = SpoolFiles(disk, ROOT)
    files.open()
    files.commit([put("a", n=1)])
    rename = next(
        number
        for number, (name, path) in enumerate(disk.operations)
        if name == "rename" and path.name == "a.json"
    )
    files.close()

    disk = FaultDisk()
    files = SpoolFiles(disk, ROOT)
    files.open()
    disk.fail(rename, "EIO", lasting=True)
    files.commit([put("a", n=1)])
    with pytest.raises(OSError, match="Input/output") as raised:
        files.commit([put("b", n=1)])
    assert raised.value.errno == errno.EIO
    disk.heal()
    files.commit([put("a", n=2)])
    disk.restart()
    assert SpoolFiles(disk, ROOT).open().jobs == {"a": record(n=2)}
