"""A file is stored whole and with the announced content, or not at all."""

import hashlib
import json
from pathlib import Path

import pytest
from tests.plugins.media_store.kit import CLIP, FakeBody, announced, digest_of, parts, put, request

from distconv_plugins.media_store.plugin import MediaStore
from distconvd.errors import BadRequest, UnsupportedMediaType


async def test_a_put_stores_the_whole_file_and_answers_with_its_digest(
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


async def test_a_file_with_another_digest_is_rejected_and_nothing_is_kept(
    store: MediaStore, root: Path
) -> None:
    await put(store, "a.mp4", b"old")
    bad = CLIP[:-1] + b"x"
    with pytest.raises(BadRequest, match="sha-256"):
        await store.put(request("PUT", "a.mp4", announced(CLIP), FakeBody(bad)))
    assert (root / "a.mp4").read_bytes() == b"old"
    assert parts(root) == []


@pytest.mark.parametrize("received", [CLIP[:-1], CLIP + b"x"])
async def test_another_length_than_announced_is_rejected(
    store: MediaStore, root: Path, received: bytes
) -> None:
    headers = {"content-length": str(len(CLIP))}
    with pytest.raises(BadRequest, match="announced"):
        await store.put(request("PUT", "a.mp4", headers, FakeBody(received)))
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
async def test_malformed_or_contradictory_headers_are_rejected(
    store: MediaStore, root: Path, headers: dict[str, str]
) -> None:
    with pytest.raises(BadRequest):
        await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP)))
    assert not root.exists()


async def test_the_sha_256_is_found_among_other_digests(store: MediaStore) -> None:
    digests = f"sha-512=:AAAA:, {digest_of(CLIP)}, unixsum=:AAA=:"
    reply = await store.put(request("PUT", "a.mp4", {"repr-digest": digests}, FakeBody(CLIP)))
    assert reply.status == 201
    bad = f"sha-512=:AAAA:, {digest_of(b'x')}"
    with pytest.raises(BadRequest):
        await store.put(request("PUT", "a.mp4", {"repr-digest": bad}, FakeBody(CLIP)))


async def test_a_compressed_body_is_refused(store: MediaStore) -> None:
    with pytest.raises(UnsupportedMediaType):
        await store.put(request("PUT", "a.mp4", {"content-encoding": "gzip"}, FakeBody(CLIP)))
