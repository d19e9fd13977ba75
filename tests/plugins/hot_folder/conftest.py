"""Provide the fixture of the hot folder's tests."""

from pathlib import Path

import pytest
from tests.plugins.hot_folder.kit import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
