"""`distconvd export` and `distconvd import` as a person runs them."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import trio
from tests.daemon.kit import COMMAND, environment, run
from tests.daemon.test_audit import print_of

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.commands import transfer
from distconvd.commands.ndjson import DumpReader
from distconvd.errors import StoreError
from distconvd.testing.store_suite import commit, put

pytestmark = pytest.mark.e2e


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The export of a store of three records."""
    state = tmp_path / "state.json"
    changes = [put("1_1", v=1), put("1_2", v=2), put("e", "engines", v=3)]
    trio.run(commit, lambda: JsonStore(state), changes)
    target = tmp_path / "farm.ndjson"
    with target.open("wb") as file:
        done = subprocess.run(
            [*COMMAND, "export", "--state-file", str(state)],
            stdout=file, stderr=subprocess.PIPE, env=environment(), check=False, timeout=20,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        0,
        b"exported 2 jobs, 1 engine, 0 attempts, 0 meta\n",
    )
    return target


def put_in(source: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    with source.open("rb") as file:
        return subprocess.run(
            [*COMMAND, "import", *flags], stdin=file, capture_output=True, text=True,
            env=environment(), cwd=source.parent, check=False, timeout=20,
        )  # fmt: skip


def test_an_export_goes_into_an_empty_store_of_another_kind_and_back(
    exported: Path, tmp_path: Path
) -> None:
    done = put_in(exported, "--store", "spool", "--state-file", "tree")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "imported 2 jobs, 1 engine, 0 attempts, 0 meta\n"
    back = run("--store", "spool", "export", "--state-file", "tree", cwd=tmp_path)
    assert back.stdout == exported.read_text()


def test_a_pipe_is_imported_too(exported: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "import", "--state-file", "new.json"], input=exported.read_bytes(),
        capture_output=True, env=environment(), cwd=tmp_path, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr[:8]) == (0, b"imported")
    assert b'"1_2": {"v":2}' in (tmp_path / "new.json").read_bytes()


def test_importing_a_truncated_file_creates_no_target(exported: Path, tmp_path: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-1])
    done = put_in(exported, "--state-file", "new.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the export is cut off in line 5" in done.stderr
    assert not list(tmp_path.glob("new.json*"))


def test_a_target_that_is_not_empty_is_refused_and_left_alone(
    exported: Path, tmp_path: Path
) -> None:
    before = (tmp_path / "state.json").read_bytes()
    done = put_in(exported, "--state-file", "state.json")
    assert done.returncode == 1
    assert "the target is not empty (it has 2 jobs, 1 engine)" in done.stderr
    assert sorted((tmp_path / "state.json").read_bytes().splitlines()[:5]) == sorted(
        before.splitlines()[:5]
    )


def test_an_export_changes_nothing_and_refuses_a_damaged_store(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    trio.run(commit, lambda: JsonStore(state), [put("1_1", v=1)])
    state.write_bytes(b"{")
    before = list(print_of(tmp_path))
    done = run("export", "--state-file", str(state), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the store is damaged: " in done.stderr
    assert list(print_of(tmp_path)) == before


def test_an_export_whose_reader_disconnects_fails_without_a_traceback(
    exported: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many.json"
    changes = [put(f"1_{n}", text="x" * 1000) for n in range(500)]
    trio.run(commit, lambda: JsonStore(many), changes)
    writing = subprocess.Popen(
        [*COMMAND, "export", "--state-file", str(many)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert writing.stdout is not None
    assert writing.stderr is not None
    writing.stdout.readline()
    writing.stdout.close()
    said = writing.stderr.read()
    writing.stderr.close()
    assert (writing.wait(20), said) == (
        1,
        b"distconvd: the export was not read to its end, so it is incomplete\n",
    )


@pytest.mark.parametrize("kind", ["json", "spool"])
@pytest.mark.parametrize("command", ["audit", "export", "import"])
def test_a_pipe_or_a_device_is_neither_read_nor_replaced(
    command: str, kind: str, exported: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with exported.open("rb") as file:
        done = subprocess.run(
            [*COMMAND, command, "--store", kind, "--state-file", str(fifo)],
            stdin=file, capture_output=True, text=True, timeout=20, env=environment(), check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{fifo} is neither a regular file nor a folder" in done.stderr
    assert fifo.is_fifo()


def test_an_import_into_memory_is_refused(exported: Path) -> None:
    done = put_in(exported, "--store", "memory")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing would be kept; name a store on disk" in done.stderr


async def test_when_the_disk_fails_half_way_the_message_says_to_empty_the_target(
    exported: Path,
) -> None:
    target = MemoryStore()
    target.fail_next(OSError(errno.ENOSPC, "No space left on device"))
    with exported.open("rb") as file:
        expected = DumpReader(file).summary()
        file.seek(0)
        with pytest.raises(StoreError, match=r"half-way: .*No space.*empty the target"):
            await transfer.fill(lambda: target, file, expected)


async def test_a_target_that_does_not_keep_what_was_written_is_noticed(exported: Path) -> None:
    memory, other = Memory(), Memory()
    stores = iter([MemoryStore(memory), MemoryStore(other)])
    with exported.open("rb") as file:
        reader = DumpReader(file)
        list(reader.changes())
        file.seek(0)
        with pytest.raises(StoreError, match="the import is wrong: 2 jobs"):
            await transfer.fill(lambda: next(stores), file, reader.summary())
