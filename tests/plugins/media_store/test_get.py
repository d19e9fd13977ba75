"""A file is served whole, by range or on a condition, and never as a web page."""

import gc
import hashlib
import os
from pathlib import Path

import pytest
from tests.plugins.media_store.kit import CLIP, body_of, break_off, put, request, upload_offset

from distconv_plugins.media_store.plugin import MediaStore
from distconvd.errors import Conflict, NotFound, RangeNotSatisfiable


async def test_a_file_comes_back_with_its_type_length_and_digest(store: MediaStore) -> None:
    await put(store, "a.MP4", CLIP)
    reply = await store.get(request("GET", "a.MP4"))
    assert (reply.status, reply.content_type, reply.content_length) == (
        200,
        "video/mp4",
        len(CLIP),
    )
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert await body_of(reply) == CLIP


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a", "a.js"])
async def test_no_file_is_served_as_a_web_page(store: MediaStore, name: str) -> None:
    await put(store, name, b"<script>")
    reply = await store.get(request("GET", name))
    assert reply.content_type == "application/octet-stream"


async def test_head_answers_what_get_does_without_the_body(store: MediaStore) -> None:
    await put(store, "a.webm", CLIP)
    get = await store.get(request("GET", "a.webm"))
    head = await store.head(request("HEAD", "a.webm", {"range": "bytes=0-1"}))
    assert head.body == b""
    assert (head.status, head.content_type, head.content_length, head.headers) == (
        get.status,
        get.content_type,
        get.content_length,
        get.headers,
    )


@pytest.mark.parametrize(
    "asked, first, last",
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=300000-", 300_000, len(CLIP) - 1),
        ("bytes=-5", len(CLIP) - 5, len(CLIP) - 1),
        ("bytes=0-99999999999", 0, len(CLIP) - 1),
        ("bytes=-99999999999", 0, len(CLIP) - 1),
    ],
)
async def test_one_range_is_answered(store: MediaStore, asked: str, first: int, last: int) -> None:
    await put(store, "a.mp4", CLIP)
    reply = await store.get(request("GET", "a.mp4", {"range": asked}))
    assert reply.status == 206
    assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(CLIP)}"
    assert reply.content_length == last - first + 1
    assert await body_of(reply) == CLIP[first : last + 1]


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=a-b", "chunks=0-1", "", "bytes=٣-٤"]
)
async def test_a_range_that_is_not_understood_is_ignored(store: MediaStore, asked: str) -> None:
    await put(store, "a.mp4", b"0123456789")
    reply = await store.get(request("GET", "a.mp4", {"range": asked}))
    assert (reply.status, await body_of(reply)) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0"])
async def test_a_range_beyond_the_end_is_416_with_the_size(store: MediaStore, asked: str) -> None:
    await put(store, "a.mp4", b"0123456789")
    with pytest.raises(RangeNotSatisfiable) as caught:
        await store.get(request("GET", "a.mp4", {"range": asked}))
    assert caught.value.headers == {"Content-Range": "bytes */10"}


async def test_conditions_compare_the_etag(store: MediaStore) -> None:
    await put(store, "a.mp4", b"0123456789")
    etag = (await store.get(request("GET", "a.mp4"))).headers["ETag"]
    assert etag == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    for condition in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        reply = await store.get(request("GET", "a.mp4", {"if-none-match": condition}))
        assert (reply.status, reply.body) == (304, b"")
    assert (await store.get(request("GET", "a.mp4", {"if-none-match": '"x"'}))).status == 200
    for tag, status in ((etag, 206), ('"x"', 200), ("Mon, 01 Jan 2024 00:00:00 GMT", 200)):
        headers = {"range": "bytes=0-1", "if-range": tag}
        assert (await store.get(request("GET", "a.mp4", headers))).status == status


async def test_a_changed_file_is_not_served_with_its_old_digest(
    store: MediaStore, root: Path
) -> None:
    await put(store, "a.mp4", b"0123456789")
    (root / "a.mp4").write_bytes(b"9876543210")
    os.utime(root / "a.mp4", (1, 1))
    reply = await store.get(request("GET", "a.mp4"))
    assert "Repr-Digest" not in reply.headers
    assert reply.headers["ETag"] == '"10-1000000000"'


async def test_a_reader_gets_the_file_that_it_began_with(store: MediaStore) -> None:
    await put(store, "a.mp4", CLIP)
    reply = await store.get(request("GET", "a.mp4"))
    await put(store, "a.mp4", b"other")
    assert await body_of(reply) == CLIP


@pytest.mark.alone
async def test_no_reply_leaks_a_descriptor(store: MediaStore) -> None:
    await put(store, "a.mp4", CLIP)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for headers in ({}, {"range": "bytes=0-1"}, {"if-none-match": "*"}):
        await store.get(request("GET", "a.mp4", headers))  # never sent
        await store.head(request("HEAD", "a.mp4", headers))
        await body_of(await store.get(request("GET", "a.mp4", headers)))
    with pytest.raises(RangeNotSatisfiable):
        await store.get(request("GET", "a.mp4", {"range": "bytes=999999999-"}))
    await upload_offset(store, "a.mp4", CLIP)
    await break_off(store, "b.mp4", CLIP, after=1)
    for name in ("missing", "missing/too", "a.mp4/below"):
        with pytest.raises(NotFound):
            await store.get(request("GET", name))
    with pytest.raises(Conflict):
        await put(store, "a.mp4/below", CLIP)
    assert len(os.listdir("/proc/self/fd")) == before
