"""Keep the slowest tests from growing: in `make test` a test that takes too much CPU time fails.

CPU time of the test's process and of the children that it has waited for, since seconds on the clock
depend on what else the machine does. Limits are two to three times what was measured, for slower
machines; a test that needs more has to enter the table, where its price is seen.
"""

import os
from collections.abc import Generator

import pytest
from tools.run_tests import FOLDER_VARIABLE

CPU_S_MAX = 25.0
CPU_S_MAX_OF = {
    "test_every_job_ends_and_all_books_agree_whatever_engines_clients_and_disk_do": 120.0,
    "test_nothing_acknowledged_is_lost_and_nothing_is_done_twice": 45.0,
    "test_schemathesis_finds_no_difference_between_the_daemon_and_its_document": 50.0,
    "test_the_whole_demo_exits_0_and_checks_every_result": 110.0,
}
"""The tests that may take more, by name."""


def cpu_s() -> float:
    """Return the CPU time of this process and its ended children, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def limit_s(item: pytest.Item) -> float:
    """Return the CPU time that a test may take."""
    return CPU_S_MAX_OF.get(getattr(item, "originalname", item.name), CPU_S_MAX)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that took more than its limit; only in `make test`, which runs the default sizes."""
    began_s = cpu_s()
    result = yield
    took_s = cpu_s() - began_s
    if FOLDER_VARIABLE in os.environ and took_s > limit_s(item):
        pytest.fail(f"took {took_s:.0f} s of CPU time, limit {limit_s(item):.0f}: tests/budget.py")
    return result
