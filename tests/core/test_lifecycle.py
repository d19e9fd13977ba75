"""Check the tables: every transition that is not in them raises."""

import itertools

import pytest

from distconvd.dispatch.lifecycle import (
    ENGINE_TABLE,
    JOB_TABLE,
    JobEvent,
    drawing,
    engine_state,
    next_status,
)
from distconvd.errors import LifecycleError
from distconvd.model import TERMINAL_STATUSES, EngineState, JobStatus

MOVES = list(itertools.product(JobStatus, JobEvent))


@pytest.mark.parametrize("status, event", MOVES)
def test_a_transition_is_in_the_table_or_raises(status: JobStatus, event: JobEvent) -> None:
    """Every pair of status and event does one or the other."""
    if (status, event) in JOB_TABLE:
        assert next_status(status, event) is JOB_TABLE[status, event]
    else:
        with pytest.raises(LifecycleError, match=f"a job that is {status} cannot {event}"):
            next_status(status, event)


def test_only_a_restart_moves_an_ended_job_and_only_to_pending() -> None:
    """Terminal jobs never move by themselves."""
    leaving = {(event, new) for (old, event), new in JOB_TABLE.items() if old in TERMINAL_STATUSES}
    assert leaving == {(JobEvent.RESTART, JobStatus.PENDING)}
    assert {old for old, event in JOB_TABLE if event is JobEvent.RESTART} == TERMINAL_STATUSES


def test_every_status_can_be_reached_and_every_event_can_happen() -> None:
    """No status and no event is unused."""
    assert set(JOB_TABLE.values()) == set(JobStatus)
    assert {event for _, event in JOB_TABLE} == set(JobEvent)


def test_the_first_true_condition_decides_the_state_of_an_engine() -> None:
    """If none is true, it is idle."""
    names = [name for name, _ in ENGINE_TABLE]
    assert engine_state(dict.fromkeys(names, False)) is EngineState.IDLE
    for at, (_, state) in enumerate(ENGINE_TABLE):
        assert engine_state({name: n >= at for n, name in enumerate(names)}) is state


def test_the_drawing_shows_every_transition() -> None:
    """It is generated for the documents."""
    text = drawing()
    for (old, event), new in JOB_TABLE.items():
        assert f"  {old} --{event}--> {new}\n" in text
    for condition, state in ENGINE_TABLE:
        assert f"  {condition}: {state}\n" in text
