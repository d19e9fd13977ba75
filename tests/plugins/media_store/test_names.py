"""No name and no link from outside leads out of the store."""

import json
import os
from pathlib import Path

import pytest
from tests.plugins.media_store.kit import CLIP, body_of, parts, put, request

from distconv_plugins.media_store.plugin import MediaStore
from distconvd.errors import BadRequest, Conflict, NotFound


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
async def test_a_name_of_a_folder_or_below_a_file_is_a_conflict(
    store: MediaStore, root: Path, name: str
) -> None:
    root.mkdir()
    (root / "folder").mkdir()
    (root / "file").write_bytes(b"x")
    with pytest.raises(Conflict):
        await put(store, name, CLIP)
    assert parts(root) == []
