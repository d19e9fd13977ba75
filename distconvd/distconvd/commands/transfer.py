"""Export a store as NDJSON to standard output, and import it (`distconvd export`, `import`).

The import reads twice. First the whole file is checked against its checksum; only then is the target
opened, so a file that was cut or damaged leaves it as it was. Input from a pipe is kept in a temporary
file meanwhile. The copy is valid once the target has been closed, reopened, and found to have the same
checksum.
"""

# ruff: noqa: T201 - a command's output is its job

import argparse
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import trio

from distconvd.commands.migrate import batches, read_store, refuse_unless_empty
from distconvd.commands.ndjson import DumpReader, Summary, summary_of, write_dump
from distconvd.commands.open_read_only import open_read_only, require_storage
from distconvd.config import Config
from distconvd.errors import ConfigError, StoreError
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.store import Store

_COPY_BYTES = 1 << 20


def run(given: argparse.Namespace, config: Config) -> None:
    """Export or import; raises `ConfigError` or `StoreError`."""
    try:
        if given.command == "export":
            summary = trio.run(_export, config, sys.stdout.buffer)
        else:
            summary = _import(config, sys.stdin.buffer)
    except BrokenPipeError as error:
        # The reader is gone. Python must not try to flush the rest to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StoreError("the export was not read to its end, so it is incomplete") from error
    except OSError as error:
        raise StoreError(f"the {given.command} failed: {error.strerror or error}") from error
    print(f"{given.command}ed {summary}", file=sys.stderr)


async def _export(config: Config, out: IO[bytes]) -> Summary:
    async with open_read_only(config, is_tolerant=False) as view:
        summary = write_dump(view.snapshot, out.write)
    out.flush()
    if stat.S_ISREG(os.fstat(out.fileno()).st_mode):
        os.fsync(out.fileno())
    return summary


def _import(config: Config, source: IO[bytes]) -> Summary:
    if config.store == "memory":
        raise ConfigError(
            "the memory store ends with this command, so nothing would be kept; name a store on disk "
            "with --store json or --store spool",
            exit_code=2,
        )
    require_storage(Path(config.state_file))
    if source.isatty():
        raise ConfigError(
            "the import reads standard input: write distconvd import < FILE", exit_code=2
        )
    with _rewindable(source) as (file, start):
        reader = DumpReader(file)
        for _ in reader.changes():
            pass
        file.seek(start)
        return trio.run(fill, lambda: _store(config), file, reader.summary())


@contextmanager
def _rewindable(source: IO[bytes]) -> Generator[tuple[IO[bytes], int]]:
    """Yield a file with the same bytes that can be read twice, and the position where it begins."""
    if source.seekable():
        yield source, source.tell()
        return
    with tempfile.TemporaryFile(prefix="distconvd-import-") as copy:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.seek(0)
        yield copy, 0


def _store(config: Config) -> Store:
    stores = Plugins(config.plugins).collect("distconvd_register_stores", "store")
    store: Store = build_checked(
        "store",
        config.store,
        stores.pick(config.store),
        Context(config),
        owner=stores.owner(config.store),
    )
    return store


async def fill(open_store: Callable[[], Store], file: IO[bytes], expected: Summary) -> Summary:
    """Import a dump that has been checked into an empty store, and read it back."""
    reader = DumpReader(file)
    # In its own function, so that the written store object is gone before it is read back.
    await _put_in(open_store(), reader)
    found = summary_of(await read_store(open_store()), reader.header)
    if found != expected:
        raise StoreError(
            f"the import is wrong: {expected} were imported, but {found} were read back, or their "
            "contents or order differ; do not use the target, and check its disk"
        )
    return found


async def _put_in(target: Store, reader: DumpReader) -> None:
    try:
        refuse_unless_empty(await target.load())
        for batch in batches(reader.changes()):
            await target.commit(batch)
    except OSError as error:
        raise StoreError(
            f"the import ended half-way: {error.strerror or error}; free space or repair the disk, "
            "empty the target, and start again"
        ) from error
    finally:
        await target.aclose()
