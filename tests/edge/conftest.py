"""Provide the fixtures of the edge's tests."""

import logging
from collections.abc import AsyncGenerator

import pytest
from tests.edge.kit import Journal, Site, open_site, small_app

from distconvd.edge.app import App


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def app(journal: Journal) -> App:
    return small_app(journal)


@pytest.fixture
async def site(app: App, caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Site]:
    caplog.set_level(logging.DEBUG, logger="distconvd")
    async with open_site(app) as opened:
        yield opened
