"""What makes thousands of short tests quick: what stays the same for the whole run is looked at once."""

import gc
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import pytest

from distconvd import plugins


def pytest_collection_finish() -> None:
    """Leave what collecting made, which stays until the end, out of every later garbage collection."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _installed_once() -> Iterator[None]:
    """What is installed does not change in a run: search every distribution for plugins once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", cache(entry_points))
        yield
