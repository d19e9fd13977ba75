"""Run tasks concurrently and return their results, without shared variables.

A trio nursery returns no results, and wraps what its tasks raise in a group. An attempt needs both:
the value of each task, and the one failure that it reports.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, cast

import trio

from distconv_engine.failures import JobFailure

T = TypeVar("T")


class Result(Generic[T]):
    """What a task has returned; there once the block of `open_tasks` has been left."""

    def __init__(self) -> None:
        self._values: list[T] = []

    async def fill(self, task: Callable[[], Awaitable[T]]) -> None:
        """Run the task and keep its value."""
        self._values.append(await task())

    @property
    def value(self) -> T:
        """The value; raises `ValueError` while the task still runs."""
        (value,) = self._values
        return value


class Tasks:
    """The tasks of one block; made by `open_tasks`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    def start(self, task: Callable[[], Awaitable[T]]) -> Result[T]:
        """Start a task, and return where its value will be."""
        result = Result[T]()
        self.nursery.start_soon(result.fill, task)
        return result

    def cancel(self) -> None:
        """Cancel all tasks, and the block."""
        self.nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_tasks() -> AsyncGenerator[Tasks]:
    """Open a block whose end waits for all tasks that were started in it.

    Error handling: once a task or the block raises, everything else is cancelled. One exception is
    raised as it is, not in a group; of several, the first `JobFailure`.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield Tasks(nursery)
    except BaseExceptionGroup as group:
        raise _main_cause(group) from None


def _main_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    failures = group.subgroup(JobFailure)
    leaves = _leaves(group if failures is None else failures)
    return leaves[0] if failures is not None or len(leaves) == 1 else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            found.append(error)
    return found
