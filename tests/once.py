"""Make costly things once a run, however many workers run the tests.

The workers of pytest-xdist are processes, each with session fixtures of its own. What they share lies
in one folder and is made under a lock: the first worker makes it, and the others wait and read it.
"""

import fcntl
import os
import pickle
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import pytest
from tools.run_tests import FOLDER_VARIABLE

T = TypeVar("T")


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that belongs to the run: of `make test`, else of this call of pytest."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a lock for what is made at `path`, in a file next to it."""
    with locked_file(path.with_name(f"{path.name}.lock")):
        yield


@contextmanager
def locked_file(path: Path) -> Generator[None]:
    """Hold the lock of a file, which may be new; the kernel releases it when its process ends."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(path: Path, make: Callable[[], T]) -> T:
    """Return what `make` returns, from `path` if a worker of this run has made it."""
    with locked(path):
        if path.exists():
            return cast("T", pickle.loads(path.read_bytes()))
        made = make()
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_bytes(pickle.dumps(made))
        unfinished.rename(path)
        return made
