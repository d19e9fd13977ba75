"""Check what concurrent tasks of an attempt return and raise."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from distconv_engine.failures import EngineFault, InputFault
from distconv_engine.tasks import open_tasks


async def wait_and_return(value: int) -> int:
    await trio.sleep(value)
    return value


async def wait_and_raise(seconds: float, error: Exception) -> None:
    await trio.sleep(seconds)
    raise error


async def raise_when_cancelled(error: Exception) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise error


async def run_both(
    task: Callable[[], Awaitable[object]], block: Callable[[], Awaitable[object]]
) -> None:
    async with open_tasks() as tasks:
        tasks.start(task)
        await trio.lowlevel.checkpoint()
        await block()


async def test_every_task_has_its_value_once_the_block_is_left(autojump_clock: object) -> None:
    async with open_tasks() as tasks:
        results = [tasks.start(partial(wait_and_return, value)) for value in (2, 1)]
    assert [result.value for result in results] == [2, 1]


async def test_a_value_that_is_asked_for_too_early_is_an_error(autojump_clock: object) -> None:
    async with open_tasks() as tasks:
        result = tasks.start(partial(wait_and_return, 1))
        with pytest.raises(ValueError, match="not enough values"):
            _ = result.value


@pytest.mark.parametrize("error", [InputFault("bad"), OSError("disk"), KeyError("bug")])
async def test_what_a_task_raises_ends_the_block_and_is_raised_without_a_group(
    error: Exception, autojump_clock: object
) -> None:
    with pytest.raises(type(error)) as caught:
        await run_both(partial(wait_and_raise, 1, error), trio.sleep_forever)
    assert caught.value is error
    assert trio.current_time() == pytest.approx(1.0, abs=0.01)


async def test_what_the_block_raises_cancels_the_tasks_and_is_raised_without_a_group() -> None:
    with pytest.raises(InputFault, match="bad"):
        await run_both(trio.sleep_forever, partial(wait_and_raise, 0, InputFault("bad")))


async def test_a_failure_of_the_job_is_raised_before_any_other_error() -> None:
    with pytest.raises(EngineFault, match="first"):
        await run_both(
            partial(raise_when_cancelled, OSError("second")),
            partial(wait_and_raise, 0, EngineFault("first")),
        )


async def test_several_errors_that_are_no_failures_of_the_job_stay_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run_both(
            partial(raise_when_cancelled, OSError("second")),
            partial(wait_and_raise, 0, KeyError("first")),
        )
    assert {type(error) for error in caught.value.exceptions} == {KeyError, OSError}


async def test_cancelled_tasks_leave_a_block_that_ends_as_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with open_tasks() as tasks:
            tasks.start(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
