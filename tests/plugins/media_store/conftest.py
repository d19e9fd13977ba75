"""Provide the fixtures of the media store's tests: a store and its folder."""

from pathlib import Path

import pytest

from distconv_plugins.media_store.plugin import MediaSettings, MediaStore


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media", MediaSettings(reserve_bytes=0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "media"
