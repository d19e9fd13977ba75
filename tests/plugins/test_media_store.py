"""A stored file is whole, is what its sender meant, and is inside the store; or it is not there."""

import base64
import errno
import gc
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from distconv_plugins import media_store
from distconv_plugins.media_store import MediaSettings, MediaStore
from distconvd.disk import REAL_DISK
from distconvd.edge.http import BodyReader, ClientDisconnected, Request, Response
from distconvd.errors import (
    BadRequest,
    BodyTooLarge,
    ConfigError,
    Conflict,
    DistconvError,
    InsufficientStorage,
    NotFound,
    RangeNotSatisfiable,
    Unavailable,
    UnsupportedMediaType,
)
from distconvd.hookspecs import RoutesFactory, S
from distconvd.policy import Policy

CLIP = bytes(range(256)) * 20_000  # some 5 MB: several pieces
Handler = Callable[[Request], Awaitable[Response]]


class FakeBody:
    """A body that arrives in chunks, and may break off or wait."""

    def __init__(
        self,
        data: bytes,
        *,
        breaks_off: bool = False,
        hold: trio.Event | None = None,
        arrived: trio.Event | None = None,
    ) -> None:
        self.data, self.breaks_off, self.hold, self.arrived = data, breaks_off, hold, arrived

    async def read_whole(self, limit_bytes: int | None) -> bytes:
        raise AssertionError("a media file is never held whole")

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 65_536):
            await trio.lowlevel.checkpoint()
            yield self.data[start : start + 65_536]
        if self.arrived is not None:
            self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.breaks_off:
            raise ClientDisconnected


def request(
    method: str, name: str, headers: Mapping[str, str] | None = None, body: BodyReader | None = None
) -> Request:
    return Request(
        method,
        f"/media/{name}",
        {},
        headers or {},
        {"name": name},
        body or FakeBody(b""),
        "r1",
        "test",
    )


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def announced(data: bytes, *, offset: int = 0, end: int | None = None) -> dict[str, str]:
    """The headers that an engine sends with (a part of) `data`."""
    end = len(data) if end is None else end
    headers = {"content-length": str(end - offset), "repr-digest": digest_of(data)}
    if offset or end < len(data):
        headers["content-range"] = f"bytes {offset}-{end - 1}/{len(data)}"
    return headers


async def body_of(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media", MediaSettings(reserve_bytes=0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "media"


def parts(root: Path) -> list[Path]:
    return list((root / ".uploads").iterdir()) if (root / ".uploads").exists() else []


async def put(store: MediaStore, name: str, data: bytes) -> Response:
    return await store.put(request("PUT", name, announced(data), FakeBody(data)))


async def break_off(store: MediaStore, name: str, data: bytes, after: int) -> None:
    body = FakeBody(data[:after], breaks_off=True)
    with pytest.raises(ClientDisconnected):
        await store.put(request("PUT", name, announced(data), body))


async def upload_offset(store: MediaStore, name: str, data: bytes) -> int:
    headers = {"repr-digest": digest_of(data), "x-upload-length": str(len(data))}
    reply = await store.head(request("HEAD", name, headers))
    assert (reply.status, reply.body) == (204, b"")
    return int(reply.headers["X-Upload-Offset"])


# -------------------------------------------------------------------------------------------- put


async def test_a_put_file_is_there_whole_and_told_with_its_digest(
    store: MediaStore, root: Path
) -> None:
    reply = await put(store, "films/a b é.mp4", CLIP)
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)) == (
        201,
        {
            "url": "/media/films/a%20b%20%C3%A9.mp4",
            "path": str(root / "films" / "a b é.mp4"),
            "size_bytes": len(CLIP),
            "sha256": hashlib.sha256(CLIP).hexdigest(),
        },
    )
    assert (root / "films" / "a b é.mp4").read_bytes() == CLIP
    assert parts(root) == []


async def test_a_put_needs_neither_length_nor_digest(store: MediaStore, root: Path) -> None:
    reply = await store.put(request("PUT", "a.mp4", {}, FakeBody(CLIP)))
    assert reply.status == 201
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_an_empty_file_can_be_put(store: MediaStore, root: Path) -> None:
    assert (await put(store, "a.mp4", b"")).status == 201
    assert (root / "a.mp4").read_bytes() == b""


async def test_a_second_put_replaces_the_file_in_one_step(store: MediaStore, root: Path) -> None:
    await put(store, "a.mp4", b"old")
    with (root / "a.mp4").open("rb") as reader:
        await put(store, "a.mp4", CLIP)
        assert reader.read() == b"old"
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_a_file_of_another_digest_is_refused_and_nothing_is_kept(
    store: MediaStore, root: Path
) -> None:
    await put(store, "a.mp4", b"old")
    bad = CLIP[:-1] + b"x"
    with pytest.raises(BadRequest, match="sha-256"):
        await store.put(request("PUT", "a.mp4", announced(CLIP), FakeBody(bad)))
    assert (root / "a.mp4").read_bytes() == b"old"
    assert parts(root) == []


@pytest.mark.parametrize("came", [CLIP[:-1], CLIP + b"x"])
async def test_another_length_than_announced_is_refused(
    store: MediaStore, root: Path, came: bytes
) -> None:
    headers = {"content-length": str(len(CLIP))}
    with pytest.raises(BadRequest, match="announced"):
        await store.put(request("PUT", "a.mp4", headers, FakeBody(came)))
    assert not (root / "a.mp4").exists()
    assert parts(root) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"repr-digest": "sha-256=:AAAA:"},
        {"repr-digest": "sha-256=:%%%:"},
        {"repr-digest": "sha-256=abc"},
        {"repr-digest": "sha-256=:" + "A" * 45 + ":"},
        {"content-range": "bytes 0-9/10"},
        {"content-range": "bytes 5-4/10", "repr-digest": digest_of(b"")},
        {"content-range": "bytes 0-10/10", "repr-digest": digest_of(b"")},
        {"content-range": "bytes */10", "repr-digest": digest_of(b"")},
        {"content-range": "bytes 0-9/10", "content-length": "9", "repr-digest": digest_of(b"")},
        {"content-length": "-1"},
        {"content-length": "٣"},
        {"content-length": "9" * 30},
    ],
)
async def test_headers_that_make_no_sense_are_refused(
    store: MediaStore, root: Path, headers: dict[str, str]
) -> None:
    with pytest.raises(BadRequest):
        await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP)))
    assert not root.exists()


async def test_the_digest_may_stand_among_others(store: MediaStore) -> None:
    digests = f"sha-512=:AAAA:, {digest_of(CLIP)}, unixsum=:AAA=:"
    reply = await store.put(request("PUT", "a.mp4", {"repr-digest": digests}, FakeBody(CLIP)))
    assert reply.status == 201
    bad = f"sha-512=:AAAA:, {digest_of(b'x')}"
    with pytest.raises(BadRequest):
        await store.put(request("PUT", "a.mp4", {"repr-digest": bad}, FakeBody(CLIP)))


async def test_a_compressed_body_is_refused(store: MediaStore) -> None:
    with pytest.raises(UnsupportedMediaType):
        await store.put(request("PUT", "a.mp4", {"content-encoding": "gzip"}, FakeBody(CLIP)))


# ------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\ud800b",
        "a\\b",
        ".uploads/x",
        ".uploads",
        "x" * 256,
        "é" * 128,
        "/".join("abcdefghi"),
    ],
)
@pytest.mark.parametrize("method", ["put", "get", "head"])
async def test_an_unsafe_name_is_refused_before_the_disk_is_touched(
    store: MediaStore, root: Path, name: str, method: str
) -> None:
    with pytest.raises(BadRequest):
        await getattr(store, method)(request(method.upper(), name))
    assert not root.exists()


@pytest.mark.parametrize(
    "name", ["x" * 255, "a/b/c/d/e/f/g/h", "-rf", "a~b#c?d%2F", "...", "🎬.mkv"]
)
async def test_any_other_name_is_stored_and_found_under_its_url(
    store: MediaStore, name: str
) -> None:
    reply = await put(store, name, b"x")
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body)["url"].startswith("/media/")
    assert await body_of(await store.get(request("GET", name))) == b"x"


@pytest.mark.parametrize("name", ["out/a.mp4", "out"])
async def test_no_link_in_the_tree_is_followed(
    store: MediaStore, root: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.mp4").write_bytes(b"secret")
    root.mkdir()
    (root / "out").symlink_to(outside if "/" in name else outside / "a.mp4")
    with pytest.raises(NotFound):
        await store.get(request("GET", name))
    if "/" in name:
        with pytest.raises(Conflict):
            await put(store, name, b"new")
    else:
        await put(store, name, b"new")  # the link itself is replaced
        assert (root / "out").read_bytes() == b"new"
        assert not (root / "out").is_symlink()
    assert (outside / "a.mp4").read_bytes() == b"secret"


async def test_only_plain_files_are_served(store: MediaStore, root: Path) -> None:
    root.mkdir()
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    for name in ("folder", "pipe", "missing", "missing/too", "pipe/below"):
        with pytest.raises(NotFound):
            await store.get(request("GET", name))


@pytest.mark.parametrize("name", ["folder", "file/below"])
async def test_a_name_with_something_in_its_way_is_a_conflict(
    store: MediaStore, root: Path, name: str
) -> None:
    root.mkdir()
    (root / "folder").mkdir()
    (root / "file").write_bytes(b"x")
    with pytest.raises(Conflict):
        await put(store, name, CLIP)
    assert parts(root) == []


# ------------------------------------------------------------------------------------------ bounds


async def test_a_file_over_the_bound_is_refused_before_and_while_it_comes(tmp_path: Path) -> None:
    settings = MediaSettings(file_bytes_max=1_000_000, reserve_bytes=0)
    store = MediaStore(tmp_path / "media", settings)
    with pytest.raises(BodyTooLarge):
        await put(store, "a.mp4", CLIP)
    with pytest.raises(BodyTooLarge):
        await store.put(request("PUT", "a.mp4", {}, FakeBody(CLIP)))
    assert parts(tmp_path / "media") == []


class UnreadBody(FakeBody):
    """A body that nobody is to ask for: its client waits for `100 Continue`."""

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError("refused before a byte is sent")


async def test_what_is_announced_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    for settings, refusal in (
        (MediaSettings(file_bytes_max=1_000_000, reserve_bytes=0), BodyTooLarge),
        (MediaSettings(reserve_bytes=2**60), InsufficientStorage),
    ):
        store = MediaStore(tmp_path / "media", settings)
        with pytest.raises(refusal):
            await store.put(request("PUT", "a.mp4", announced(CLIP), UnreadBody(b"")))


async def test_the_reserve_of_the_disk_is_not_touched(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    store = MediaStore(tmp_path / "media", MediaSettings(reserve_bytes=free * 2))
    for headers in (announced(CLIP), {}):
        with pytest.raises(InsufficientStorage, match="0 bytes to spare"):
            await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP)))
    assert parts(tmp_path / "media") == []


@pytest.mark.parametrize(
    "error, told",
    [
        (errno.ENOSPC, InsufficientStorage),
        (errno.EDQUOT, InsufficientStorage),
        (errno.EIO, Unavailable),
        (errno.EROFS, Unavailable),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
async def test_a_refusing_disk_is_told_and_leaves_the_old_file(
    store: MediaStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: int,
    told: type[DistconvError],
) -> None:
    await put(store, "a.mp4", b"old")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(told):
            await put(store, "a.mp4", CLIP)
    assert (root / "a.mp4").read_bytes() == b"old"
    assert parts(root) == []


async def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(
    store: MediaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "folder/first", b"x")
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        calls.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync")
        fsync(descriptor)

    def note_rename(*args: Any, **kwargs: Any) -> None:
        calls.append("rename")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    await put(store, "folder/second", CLIP)
    assert calls == ["fsync", "rename", "fsync folder"]


# ------------------------------------------------------------------------------------------ resuming


async def test_a_broken_upload_goes_on_where_it_stopped(store: MediaStore, root: Path) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    offset = await upload_offset(store, "a.mp4", CLIP)
    assert 2_000_000 < offset <= 3_000_000
    rest = FakeBody(CLIP[offset:])
    reply = await store.put(request("PUT", "a.mp4", announced(CLIP, offset=offset), rest))
    assert reply.status == 201
    assert (root / "a.mp4").read_bytes() == CLIP
    assert parts(root) == []


async def test_a_file_can_come_in_pieces(store: MediaStore, root: Path) -> None:
    for start in range(0, len(CLIP), 2_000_000):
        end = min(start + 2_000_000, len(CLIP))
        headers = announced(CLIP, offset=start, end=end)
        reply = await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[start:end])))
        if end < len(CLIP):
            assert (reply.status, reply.headers["X-Upload-Offset"]) == (202, str(end))
            assert not (root / "a.mp4").exists()
        else:
            assert reply.status == 201
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_an_upload_may_go_back_and_send_a_stretch_again(
    store: MediaStore, root: Path
) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    headers = announced(CLIP, offset=1_000_000)
    await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[1_000_000:])))
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_a_whole_put_begins_anew_over_a_part(store: MediaStore, root: Path) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    assert (await put(store, "a.mp4", CLIP)).status == 201
    assert parts(root) == []


async def test_nothing_of_an_older_part_is_counted_after_a_new_beginning(store: MediaStore) -> None:
    await break_off(store, "a.mp4", CLIP, after=4_000_000)
    await break_off(store, "a.mp4", CLIP, after=2_000_000)
    assert await upload_offset(store, "a.mp4", CLIP) <= 2_000_000


async def test_going_on_behind_what_is_here_is_a_conflict_that_tells_the_offset(
    store: MediaStore,
) -> None:
    await break_off(store, "a.mp4", CLIP, after=2_000_000)
    offset = await upload_offset(store, "a.mp4", CLIP)
    headers = announced(CLIP, offset=offset + 1)
    with pytest.raises(Conflict) as caught:
        await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[offset + 1 :])))
    assert caught.value.headers["X-Upload-Offset"] == str(offset)
    assert await upload_offset(store, "a.mp4", CLIP) == offset


async def test_a_part_that_went_bad_on_disk_is_found_out_and_dropped(
    store: MediaStore, root: Path
) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    offset = await upload_offset(store, "a.mp4", CLIP)
    [part] = parts(root)
    with part.open("r+b") as file:
        file.write(b"\0" * 4096)
    headers = announced(CLIP, offset=offset)
    with pytest.raises(BadRequest, match="sha-256"):
        await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[offset:])))
    assert await upload_offset(store, "a.mp4", CLIP) == 0


async def test_parts_of_different_files_under_one_name_never_mix(
    store: MediaStore, root: Path
) -> None:
    other = CLIP[::-1]
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    assert await upload_offset(store, "a.mp4", other) == 0
    await put(store, "a.mp4", other)
    assert await upload_offset(store, "a.mp4", CLIP) > 0
    assert (root / "a.mp4").read_bytes() == other


async def test_a_file_that_is_here_already_needs_nothing_sent(store: MediaStore) -> None:
    await put(store, "a.mp4", CLIP)
    assert await upload_offset(store, "a.mp4", CLIP) == len(CLIP)
    assert await upload_offset(store, "a.mp4", CLIP[:-1] + b"x") == 0


async def test_an_upload_without_an_identity_keeps_no_part(store: MediaStore, root: Path) -> None:
    body = FakeBody(CLIP, breaks_off=True)
    with pytest.raises(ClientDisconnected):
        await store.put(request("PUT", "a.mp4", {"content-length": str(len(CLIP) + 1)}, body))
    assert parts(root) == []


async def test_the_same_upload_again_takes_over_from_a_dead_connection(
    store: MediaStore, root: Path
) -> None:
    arrived, refusals = trio.Event(), list[DistconvError]()

    async def dead() -> None:
        body = FakeBody(CLIP[:2_000_000], hold=trio.Event(), arrived=arrived)
        try:
            await store.put(request("PUT", "a.mp4", announced(CLIP), body))
        except DistconvError as error:
            refusals.append(error)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dead)
            await arrived.wait()
            assert (await put(store, "a.mp4", CLIP)).status == 201
    assert [type(error) for error in refusals] == [Conflict]
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_a_cancelled_upload_keeps_its_part(store: MediaStore) -> None:
    arrived = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            body = FakeBody(CLIP[:3_000_000], hold=trio.Event(), arrived=arrived)
            nursery.start_soon(store.put, request("PUT", "a.mp4", announced(CLIP), body))
            await arrived.wait()
            nursery.cancel_scope.cancel()
    assert await upload_offset(store, "a.mp4", CLIP) > 2_000_000


async def test_parts_that_nobody_goes_on_with_expire(tmp_path: Path) -> None:
    settings = MediaSettings(reserve_bytes=0, part_keep_s=3600)
    await break_off(MediaStore(tmp_path, settings), "old.mp4", CLIP, after=1_000)
    [old] = parts(tmp_path)
    os.utime(old, (0, 0))
    await break_off(MediaStore(tmp_path, settings), "new.mp4", CLIP, after=1_000)
    assert len(parts(tmp_path)) == 1
    assert parts(tmp_path) != [old]


# --------------------------------------------------------------------------------------------- get


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
async def test_nothing_is_served_as_a_page(store: MediaStore, name: str) -> None:
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
async def test_a_range_behind_the_end_is_416_with_the_size(store: MediaStore, asked: str) -> None:
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


async def test_a_file_that_somebody_changed_is_not_told_with_its_old_digest(
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


# -------------------------------------------------------------------------------------- the plugin


class Context:
    """What the daemon would tell the plugin."""

    api_key = None
    key_file = None
    disk = REAL_DISK
    spool_dir = None

    def __init__(self, root: Path, settings: dict[str, object]) -> None:
        self.state_file = root / "state.json"
        self.media_dir = root / "media"
        self._settings = settings

    def policy(self, name: str) -> Policy:
        raise ConfigError(f"there is no policy {name!r}")

    def settings(self, name: str, kind: type[S]) -> S:
        assert name == "media-store"
        return msgspec.convert(self._settings, kind)


class Offers:
    def __init__(self) -> None:
        self.made: dict[str, RoutesFactory] = {}

    def add(self, name: str, offered: RoutesFactory) -> None:
        self.made[name] = offered


async def test_the_plugin_offers_routes_under_the_right_roles_and_keeps_to_its_settings(
    tmp_path: Path,
) -> None:
    offers = Offers()
    media_store.distconvd_register_routes(offers)
    routes = offers.made["media-store"](Context(tmp_path, {"file_bytes_max": 3}))
    assert [(route.method, route.role, route.body) for route in routes] == [
        ("PUT", "engine", "stream"),
        ("GET", "read", "none"),
        ("HEAD", "read", "none"),
    ]
    with pytest.raises(BodyTooLarge):
        await routes[0].handler(request("PUT", "a", announced(b"1234"), FakeBody(b"1234")))
