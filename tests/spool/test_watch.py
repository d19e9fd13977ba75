"""A submitter can follow a drop to its end, and never misses a state."""

import json
from pathlib import Path

import pytest

from distconv_spool import (
    BadDrop,
    Drop,
    Layout,
    Owner,
    State,
    create,
    look,
    read_result,
    submit,
    wait,
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")


class Pauses:
    """A clock that moves at each pause, and steps that are taken then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.then: list[object] = []

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        if self.then:
            step = self.then.pop(0)
            assert callable(step)
            step()


def test_a_drop_is_followed_from_waiting_to_finished(layout: Layout) -> None:
    drop = submit(layout.root, {"a": 1})
    owner = Owner(layout, "me")
    assert look(layout.root, drop).state is State.WAITING
    claims, _ = owner.claim(owner.waiting())
    assert look(layout.root, drop).state is State.CLAIMED
    owner.accept([(claims[0], "17_1")])
    accepted = look(layout.root, drop)
    assert (accepted.state, accepted.job_id) == (State.ACCEPTED, "17_1")
    owner.publish_results([("17_1", b'{"status": "completed"}')])
    finished = look(layout.root, drop)
    assert (finished.state, finished.record) == (State.FINISHED, {"status": "completed"})
    assert read_result(layout.root, "17_1") == {"status": "completed"}
    owner.close()


def test_a_rejected_drop_reports_its_problem(layout: Layout) -> None:
    drop = submit(layout.root, {"a": 1})
    owner = Owner(layout, "me")
    claims, _ = owner.claim(owner.waiting())
    owner.reject([(claims[0], b'{"detail": "no"}')])
    owner.close()
    outcome = look(layout.root, drop)
    assert (outcome.state, outcome.problem) == (State.REJECTED, {"detail": "no"})


def test_wait_returns_as_soon_as_the_state_is_reached(layout: Layout) -> None:
    drop, pauses, owner = submit(layout.root, {"a": 1}), Pauses(), Owner(layout, "me")
    pauses.then = [
        lambda: owner.claim(owner.waiting()),
        lambda: owner.accept([(owner.recover(1)[0], "17_1")]),
        lambda: pytest.fail("waited too long"),
    ]
    outcome = wait(
        layout.root,
        drop,
        timeout_s=60,
        until=State.ACCEPTED,
        clock=pauses.clock,
        pause=pauses.pause,
    )
    owner.close()
    assert outcome.job_id == "17_1"


def test_wait_gives_up_at_its_deadline_with_what_it_knows(layout: Layout) -> None:
    drop, pauses = submit(layout.root, {"a": 1}), Pauses()
    outcome = wait(layout.root, drop, timeout_s=60, clock=pauses.clock, pause=pauses.pause)
    assert outcome.state is State.WAITING
    assert pauses.now_s == pytest.approx(60)


def test_wait_does_not_wait_for_the_end_of_a_rejected_drop(layout: Layout) -> None:
    drop = Drop("a.json")
    (layout.rejected / "K~a.json").write_text("{")
    (layout.rejected / "K~a.json.problem.json").write_text(json.dumps({"status": 400}))
    assert wait(layout.root, drop, timeout_s=1e9).problem == {"status": 400}


def test_a_damaged_result_is_reported_and_not_taken_for_missing(layout: Layout) -> None:
    (layout.results / "17_1.json").write_text("{")
    with pytest.raises(BadDrop, match="damaged"):
        read_result(layout.root, "17_1")


@pytest.mark.parametrize("job_id", ["../tmp/x", "", "a/b", "a\n"])
def test_an_id_that_is_a_path_is_refused(layout: Layout, job_id: str) -> None:
    with pytest.raises(ValueError, match="cannot be a job's id"):
        read_result(layout.root, job_id)
