"""Test downloads over real sockets from a server with faults on request."""

import hashlib
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from tests.engine.daemon import FakeDaemon, Served

from distconv_engine.backoff import Backoff
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    JobFailure,
    NoAccess,
    NotAllowedHere,
    TransientFault,
)
from distconv_engine.transfer.download import check_sha256, download, local_path
from distconv_engine.transfer.range_reader import RangeReader
from distconvd.model import FailureClass

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.0)


async def get(
    client: httpx.AsyncClient, daemon: FakeDaemon, served: Served, path: Path
) -> list[float]:
    daemon.files["/clip"] = served
    fractions: list[float] = []
    with trio.fail_after(20):
        await download(
            client,
            f"{daemon.url}/clip",
            path,
            tries=3,
            on_total=lambda total, here: None,
            on_progress=fractions.append,
        )
    return fractions


async def test_a_source_is_downloaded_whole_with_progress(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    fractions = await get(client, daemon, Served(CONTENT), tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == CONTENT
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


async def test_a_broken_download_continues_where_it_stopped(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    served = Served(CONTENT, break_after=[1_200_000, 900_000])
    await get(client, daemon, served, tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == CONTENT
    assert [asked is not None for asked in served.requests] == [False, True, True]


@pytest.mark.parametrize("served", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}])
async def test_a_server_without_ranges_or_without_a_strong_etag_is_asked_again_from_the_start(
    served: dict[str, Any],
    client: httpx.AsyncClient,
    daemon: FakeDaemon,
    tmp_path: Path,
) -> None:
    await get(client, daemon, Served(CONTENT, break_after=[1_200_000], **served), tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "served,kind,words",
    [
        ({"break_after": [1_100_000] * 20, "ranges": False}, InputFault, "breaks off"),
        ({"claim_length": 4_000_000, "ranges": False}, InputFault, "breaks off"),
        ({"break_after": [1_100_000], "etags": ['"a"', '"b"']}, InputFault, "changed"),
        ({"statuses": [404]}, InputFault, "404"),
        ({"statuses": [403]}, InputFault, "403"),
        ({"statuses": [503] * 9}, TransientFault, "503"),
    ],
)
async def test_a_failed_download_is_classified_by_whose_fault_it_is(
    served: dict[str, Any],
    kind: type[JobFailure],
    words: str,
    client: httpx.AsyncClient,
    daemon: FakeDaemon,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind) as caught:
        await get(client, daemon, Served(CONTENT, **served), tmp_path / "s")
    assert words in caught.value.message


async def test_a_busy_server_is_asked_again(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    await get(client, daemon, Served(CONTENT, statuses=[503, 429]), tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == CONTENT


async def test_an_unreachable_server_is_a_transient_fault(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    with pytest.raises(TransientFault):
        await download(
            client,
            "http://127.0.0.1:9/clip",
            tmp_path / "s",
            tries=2,
            on_total=lambda total, here: None,
            on_progress=lambda part: None,
        )


async def test_a_digest_that_differs_is_an_input_failure(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(CONTENT)
    await check_sha256(path, hashlib.sha256(CONTENT).hexdigest().upper())
    with pytest.raises(InputFault):
        await check_sha256(path, "0" * 64)


@pytest.mark.parametrize(
    "name", ["-x.mp4", "%d.mp4", "a b%25.mp4", "concat:a|b.mp4", "http:x", "ü\n.mp4", "q?w#e.mp4"]
)
def test_a_file_name_with_special_characters_is_taken_literally(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    assert local_path(path.as_uri(), [tmp_path]) == path


def test_a_source_outside_of_the_roots_is_rejected_also_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    (root / "link").symlink_to(secret)
    for url in (secret.as_uri(), (root / "link").as_uri(), f"{root.as_uri()}/../secret"):
        with pytest.raises(EngineFault):
            local_path(url, [root])
    with pytest.raises(EngineFault):
        local_path(secret.as_uri(), [])


def test_a_forbidden_source_says_what_to_do_and_is_the_fault_of_the_settings(
    tmp_path: Path,
) -> None:
    for roots in ([], [tmp_path / "root"]):
        with pytest.raises(NotAllowedHere, match=r"Start it with .*submit .* URL") as caught:
            local_path("file:///etc/passwd", roots)
        assert caught.value.error_class is FailureClass.NOT_ALLOWED


def test_a_file_name_need_not_be_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4"))
    path.write_bytes(b"x")
    assert path.as_uri().endswith("/bad%FF.mp4")
    assert local_path(path.as_uri(), [tmp_path]) == path


@pytest.mark.parametrize("name", ["none", "none/a", "file/a", "loop"])
def test_a_file_that_this_engine_does_not_see_may_be_seen_by_another(
    tmp_path: Path, name: str
) -> None:
    """As on a node that has lost its share."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NoAccess, match="The source cannot be read: ") as caught:
        local_path((tmp_path / name).as_uri(), [Path("/")])
    assert caught.value.error_class is FailureClass.NO_ACCESS


@pytest.mark.parametrize("url", ["file://host/a", "file:relative", "file:///%00"])
def test_a_file_url_that_names_no_local_file_is_an_input_failure(url: str) -> None:
    with pytest.raises(InputFault):
        local_path(url, [Path("/")])


def test_a_directory_or_a_device_is_not_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputFault):
        local_path(tmp_path.as_uri(), [Path("/")])
    with pytest.raises(InputFault):
        local_path("file:///dev/zero", [Path("/")])


class Redirecting(httpx.AsyncHTTPTransport):
    """A server that redirects; other schemes go to the real transport, which rejects them."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme != "http":
            return await super().handle_async_request(request)
        return httpx.Response(302, headers={"Location": self._location})


@pytest.mark.parametrize(
    "location,words",
    [
        ("file:///etc/passwd", r"redirects to a URL that is not http\(s\): .*'file://'"),
        ("ftp://a/clip", r"redirects to a URL that is not http\(s\): .*'ftp://'"),
        ("javascript:1", "URL does not work"),
        ("/clip", "URL does not work: Exceeded maximum allowed redirects"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_redirect_to_an_unusable_url_fails_without_further_tries(
    streamed: bool, location: str, words: str, tmp_path: Path
) -> None:
    url = "http://server/clip"
    async with httpx.AsyncClient(transport=Redirecting(location), follow_redirects=True) as client:
        reader = RangeReader(client, url, key=None, tries=1000)
        fetch = partial(
            download,
            client,
            url,
            tmp_path / "s",
            tries=1000,
            on_total=lambda total, here: None,
            on_progress=lambda part: None,
        )
        read = reader.open if streamed else fetch
        with pytest.raises(InputFault, match=words):
            await read()
