"""Share set-up among all tests: scan plugins once, restore logging after each test."""

import gc
import logging
import signal
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import pytest
from tests.budget import pytest_runtest_call

from distconvd.plugin_host import loading

__all__ = ["pytest_runtest_call"]

LOGGERS = (None, "distconv_engine")
"""Loggers that the commands set up."""
MEASURING_SUITE_TESTS = {
    "test_a_call_is_quick_for_good_keys_and_for_wrong_ones",
    "test_decisions_are_quick",
    "test_decisions_do_not_become_slower_with_the_number_of_jobs",
    "test_it_returns_immediately_even_in_a_burst",
}
"""Tests of `distconvd.testing` that measure time."""


def pytest_configure() -> None:
    """Let child processes receive Ctrl-C, as at a terminal: a shell starts background commands with
    SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the marker `alone` to the tests of the exported suites that measure time: a plugin's
    author runs these suites too, and does not have the marker."""
    for item in items:
        if getattr(item, "originalname", None) in MEASURING_SUITE_TESTS:
            item.add_marker(pytest.mark.alone)


def pytest_collection_finish() -> None:
    """Exclude the objects of test collection, which stay until the end, from garbage collection."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _installed_once() -> Iterator[None]:
    """Search the installed distributions for plugins once: they do not change during a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "entry_points", cache(entry_points))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Restore logging: a command that a test runs sets it up with streams that end with the test."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
