"""What thousands of short tests share: what stays the same is looked at once, and each leaves the
process as it found it."""

import gc
import logging
import signal
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import pytest

from distconvd.plugin_host import loading

LOGGERS = (None, "distconv_engine")
"""Those that the commands set up."""


def pytest_configure() -> None:
    """Let commands that a test starts see its Ctrl-C, as at a terminal: a shell starts what it runs
    in the background with SIGINT ignored, and a child inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what collecting made, which stays until the end, out of every later garbage collection."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _installed_once() -> Iterator[None]:
    """What is installed does not change in a run: search every distribution for plugins once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "entry_points", cache(entry_points))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that a test runs sets logging up for itself, with streams that end with the test."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
