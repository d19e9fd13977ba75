"""An export restores every store exactly, and an incomplete or changed export is rejected."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.memory import Memory, MemoryStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd import __version__
from distconvd.commands import ndjson
from distconvd.commands.migrate import batches
from distconvd.commands.ndjson import DumpReader, Summary, summary_of, write_dump
from distconvd.errors import StoreError, StoreTooNew
from distconvd.store import TABLES, Change, Snapshot, Store
from distconvd.testing.store_suite import ODD_KEYS, commit, contents, put

ODD_TEXT = "\\\"'\x00\x7f\u2028\U0001f3ac é\n"
SOME = [
    put(key, table, n=n, text=ODD_TEXT) for table in TABLES for n, key in enumerate(ODD_KEYS[::3])
]
EMPTY = Snapshot({}, {}, {}, {})


def written(snapshot: Snapshot) -> bytes:
    file = io.BytesIO()
    write_dump(snapshot, file.write)
    return file.getvalue()


def read(data: bytes) -> list[Change]:
    return list(DumpReader(io.BytesIO(data)).changes())


def openers(tmp_path: Path) -> dict[str, Callable[[], Store]]:
    memory = Memory()
    return {
        "json": lambda: JsonStore(tmp_path / "state.json"),
        "spool": lambda: SpoolStore(tmp_path / "state"),
        "memory": lambda: MemoryStore(memory),
    }


@pytest.mark.parametrize("source", ["json", "spool", "memory"])
@pytest.mark.parametrize("target", ["json", "spool", "memory"])
async def test_every_store_goes_into_every_other_byte_for_byte_and_in_order(
    source: str, target: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = openers(tmp_path / "a")[source], openers(tmp_path / "b")[target]
    await commit(first, SOME)
    original = await contents(first)
    data = written(original)
    for batch in batches(read(data)):
        await commit(second, batch)
    copied = await contents(second)
    assert [list(t.items()) for t in copied] == [list(t.items()) for t in original]
    assert written(copied) == data


def test_a_dump_is_a_header_a_record_a_line_and_a_trailer() -> None:
    snapshot = Snapshot({"1_1": b'{"a":1}'}, {}, {"1_1": b'{ "b": [\n1] }'}, {})
    header, *records, trailer = written(snapshot).splitlines()
    assert json.loads(header) == {"distconv": "export", "format": 1, "version": __version__}
    assert records == [
        b'{"table":"jobs","key":"1_1","record":{"a":1}}',
        b'{"table":"attempts","key":"1_1","record":{"b":[1]}}',
    ]
    ending = json.loads(trailer)
    assert (ending["jobs"], ending["attempts"], ending["engines"]) == (1, 1, 0)


def test_an_empty_store_is_a_whole_dump_too() -> None:
    assert read(written(EMPTY)) == []


def test_the_summary_of_what_is_there_is_that_of_the_dump_it_came_from() -> None:
    snapshot = Snapshot({"1_1": b'{"a":1}'}, {"e": b"{}"}, {}, {})
    reader = DumpReader(io.BytesIO(written(snapshot)))
    for _ in reader.changes():
        pass
    assert summary_of(snapshot, reader.header) == reader.summary()
    other = Snapshot({"1_1": b'{"a":2}'}, {"e": b"{}"}, {}, {})
    assert summary_of(other, reader.header) != reader.summary()
    assert str(reader.summary()) == "1 job, 1 engine, 0 attempts, 0 meta"


def test_a_dump_that_was_cut_anywhere_is_refused() -> None:
    whole = written(Snapshot({"1_1": b'{"a":1}', "1_2": b'{"a":2}'}, {}, {}, {}))
    for length in range(len(whole)):
        with pytest.raises(StoreError):
            read(whole[:length])
    assert len(read(whole)) == 2


def test_a_dump_in_which_any_byte_was_changed_is_refused() -> None:
    whole = written(Snapshot({"1_1": b'{"a":1}'}, {"e": b'{"b":2}'}, {}, {}))
    for at in range(len(whole)):
        for flip in (1, 32):
            damaged = bytes([*whole[:at], whole[at] ^ flip, *whole[at + 1 :]])
            with pytest.raises(StoreError):
                read(damaged)


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines[:2], *lines[1:]],
        lambda lines: [*lines, lines[1]],
        lambda lines: [*lines, *lines],
        lambda lines: lines[1:],
    ],
    ids=["moved", "missing", "doubled", "more behind", "two in one", "no header"],
)
def test_a_dump_whose_lines_were_moved_or_removed_is_rejected(
    corrupt: Callable[[list[bytes]], list[bytes]],
) -> None:
    snapshot = Snapshot({"1_1": b'{"a":1}', "1_2": b'{"a":2}'}, {}, {}, {})
    lines = written(snapshot).splitlines(keepends=True)
    with pytest.raises(StoreError):
        read(b"".join(corrupt(lines)))


@pytest.mark.parametrize(
    "line,said",
    [
        (b'{"table":"jobs","key":"a","record":[1]}', "not a JSON object"),
        (b'{"table":"jobs","key":"a","record":{"t":"\xff"}}', "is not a record"),
        (b'{"table":"boats","key":"a","record":{}}', "is not a record"),
        (b'{"table":"jobs","key":1,"record":{}}', "is not a record"),
        (b'{"table":"jobs","key":"a","record":{},"x":1}', "is not a record"),
        (b'{"end":"export"}', "not the last line of an export"),
        (b"", "is not a record"),
    ],
)
def test_a_line_that_is_not_a_record_is_reported_with_its_number(line: bytes, said: str) -> None:
    header = written(EMPTY).splitlines(keepends=True)[0]
    with pytest.raises(StoreError, match=f"line 2 of the export .*{said}"):
        read(header + line + b"\n")


def test_a_newer_format_is_refused_with_the_version_that_wrote_it() -> None:
    newer = b'{"distconv":"export","format":2,"version":"9.1.0","zip":true}\n{"what":1}\n'
    with pytest.raises(StoreTooNew, match=r"format 2, written by version 9\.1\.0"):
        read(newer)


def test_a_file_that_is_not_an_export_is_recognized_by_its_first_line() -> None:
    for data in (b"", b"\x1f\x8b\x08", b'{"jobs":{}}\n', b"null\n"):
        with pytest.raises(StoreError, match=r"cut off|not an export of distconvd"):
            read(data)


def test_a_line_without_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "LINE_BYTES_MAX", 100)
    header = written(EMPTY).splitlines(keepends=True)[0]
    file = io.BytesIO(header + b'{"table":"jobs"' + b" " * 1000)
    reader = DumpReader(file)
    with pytest.raises(StoreError, match="longer than any record"):
        list(reader.changes())
    assert file.tell() <= len(header) + 100


def test_a_summary_reports_counts_by_table() -> None:
    assert str(Summary(dict.fromkeys(TABLES, 0), "")) == "0 jobs, 0 engines, 0 attempts, 0 meta"
