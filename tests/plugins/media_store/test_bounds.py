"""A file that is too large, and a full or failing disk, are reported; the old file is kept."""

import errno
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.kit import Context, registered
from tests.plugins.media_store.kit import CLIP, FakeBody, announced, parts, put, request

from distconv_plugins.media_store import plugin
from distconv_plugins.media_store.plugin import MediaSettings, MediaStore
from distconvd.errors import BodyTooLarge, DistconvError, InsufficientStorage, Unavailable


async def test_a_file_over_the_limit_is_rejected_before_and_during_its_upload(
    tmp_path: Path,
) -> None:
    settings = MediaSettings(file_bytes_max=1_000_000, reserve_bytes=0)
    store = MediaStore(tmp_path / "media", settings)
    with pytest.raises(BodyTooLarge):
        await put(store, "a.mp4", CLIP)
    with pytest.raises(BodyTooLarge):
        await store.put(request("PUT", "a.mp4", {}, FakeBody(CLIP)))
    assert parts(tmp_path / "media") == []


class UnreadBody(FakeBody):
    """A body that must not be read: its client waits for `100 Continue`."""

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError("must be rejected before a byte is sent")


async def test_an_upload_announced_as_too_large_is_rejected_before_its_body_is_read(
    tmp_path: Path,
) -> None:
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
    "error, expected",
    [
        (errno.ENOSPC, InsufficientStorage),
        (errno.EDQUOT, InsufficientStorage),
        (errno.EIO, Unavailable),
        (errno.EROFS, Unavailable),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
async def test_a_disk_error_is_reported_and_leaves_the_old_file(
    store: MediaStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: int,
    expected: type[DistconvError],
) -> None:
    await put(store, "a.mp4", b"old")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(expected):
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


async def test_the_plugin_registers_routes_under_the_right_roles_and_keeps_to_its_settings(
    tmp_path: Path,
) -> None:
    factory = registered(plugin.distconvd_register_routes, "media-store")
    routes = factory(Context(tmp_path, "media-store", {"file_bytes_max": 3}))
    assert [(route.method, route.role, route.body) for route in routes] == [
        ("PUT", "engine", "stream"),
        ("GET", "read", "none"),
        ("HEAD", "read", "none"),
    ]
    with pytest.raises(BodyTooLarge):
        await routes[0].handler(request("PUT", "a", announced(b"1234"), FakeBody(b"1234")))
