"""Check that a lazy heap and a schedule agree with a sorted list, and stay small."""

import random

from distconvd.dispatch.matching.lazy_heap import SWEEP_ABOVE, LazyHeap
from distconvd.dispatch.matching.requirements import Front
from distconvd.dispatch.matching.schedule import Schedule

Entry = tuple[int, str]


def filled(count: int) -> tuple[LazyHeap[Entry], dict[str, Entry]]:
    """Return a heap of `count` entries, and its valid entries."""
    valid: dict[str, Entry] = {}
    heap = LazyHeap(valid, name_at=1)
    for number in range(count):
        entry = valid[f"n{number}"] = (number, f"n{number}")
        heap.push(entry)
    return heap, valid


def test_the_first_entry_is_the_least_valid_one_over_many_random_changes() -> None:
    rng = random.Random(1)
    heap, valid = filled(0)
    for number in range(5_000):
        name = f"n{rng.randrange(200)}"
        if rng.random() < 0.6:
            entry = valid[name] = (rng.randrange(10**6), name)
            heap.push(entry)
        else:
            valid.pop(name, None)
        if number % 7 == 0:
            heap.prune(4)
        assert heap.first() == min(valid.values(), default=None)
        if number % 50 == 0:
            assert list(heap.in_order()) == sorted(heap) == sorted(valid.values())


def test_an_entry_that_was_replaced_by_an_equal_one_counts_once() -> None:
    heap, valid = filled(1)
    valid["n0"] = (int("0"), "n0")
    heap.push(valid["n0"])
    assert list(heap) == list(heap.in_order()) == [(0, "n0")]


def test_invalid_entries_below_a_valid_one_are_swept_before_they_are_most_of_the_heap() -> None:
    heap, valid = filled(1)
    for number in range(10_000):
        entry = valid["later"] = (1 + number, "later")
        heap.push(entry)
        assert len(heap) <= 2 * len(valid) + SWEEP_ABOVE + 1


def test_pruning_drops_no_more_entries_than_it_may_and_no_valid_one() -> None:
    heap, valid = filled(10)
    for number in range(6):
        del valid[f"n{number}"]
    heap.prune(4)
    assert len(heap) == 6
    heap.prune(4)
    heap.prune(4)
    assert len(heap) == 4
    assert heap.first() == (6, "n6")


def test_a_walk_in_order_puts_back_what_it_took_out_wherever_it_is_closed() -> None:
    for taken in range(5):
        heap, valid = filled(4)
        walk = heap.in_order()
        assert [entry for entry, _ in zip(walk, range(taken), strict=False)] == [
            (number, f"n{number}") for number in range(min(taken, 4))
        ]
        walk.close()
        assert list(heap.in_order()) == sorted(valid.values())


def test_a_schedule_finds_the_first_front_although_fronts_rise_without_notice() -> None:
    rng = random.Random(2)
    fronts: dict[str, Front] = {}
    schedule: Schedule[str] = Schedule(fronts.get)
    for _ in range(5_000):
        queue = f"q{rng.randrange(30)}"
        present = fronts.get(queue)
        what = rng.choice(["rises", "rises", "falls", "ends"])
        if what == "ends":
            fronts.pop(queue, None)
            schedule.remove(queue)
        elif what == "rises" and present is not None:
            fronts[queue] = present._replace(clock=present.clock + rng.random())
        else:
            clock = rng.random() if present is None else present.clock - rng.random()
            fronts[queue] = Front(0, clock, 0, queue, "")
            schedule.enter(queue)
        least = min(((front, name) for name, front in fronts.items()), default=None)
        assert schedule.first() == least
        assert len(schedule._heap) <= 2 * len(fronts) + SWEEP_ABOVE + 1 + 30


def test_a_queue_taken_out_of_a_schedule_does_not_come_until_it_is_entered_again() -> None:
    fronts = {name: Front(0, clock, 0, name, "") for name, clock in (("a", 1.0), ("b", 2.0))}
    schedule: Schedule[str] = Schedule(fronts.get)
    for name in fronts:
        schedule.enter(name)
    assert schedule.pop() == (fronts["a"], "a")
    assert schedule.first() == (fronts["b"], "b")
    schedule.enter("a")
    assert schedule.first() == (fronts["a"], "a")
