"""Provide a fake site, and a doctor configured for it."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from tests.client.doctor.kit import REPORT, Site

from distconv_client import Client
from distconv_client.config import Settings
from distconv_client.doctor import DoctorConfig
from distconv_client.retry import RetryPolicy


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def port() -> Iterator[int]:
    """A port with a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def doctor_config(site: Site, port: int) -> DoctorConfig:
    def make_client(server: str, key: str | None) -> Client:
        transport = httpx.MockTransport(site.handle)
        return Client(server, key, retry=RetryPolicy(retries=0), transport=transport)

    return DoctorConfig(
        Settings(f"http://127.0.0.1:{port}", None),
        make_client=make_client,
        transport=httpx.MockTransport(site.handle),
        ask_engine=lambda work_dir: REPORT,
        sleep=lambda seconds: None,
    )
