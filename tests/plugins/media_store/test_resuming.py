"""A broken upload resumes where it stopped, and never mixes two files."""

import os
from pathlib import Path

import pytest
import trio
from tests.plugins.media_store.kit import (
    CLIP,
    FakeBody,
    announced,
    break_off,
    parts,
    put,
    request,
    upload_offset,
)

from distconv_plugins.media_store.plugin import MediaSettings, MediaStore
from distconvd.edge.http import ClientDisconnected
from distconvd.errors import BadRequest, Conflict, DistconvError


async def test_a_broken_upload_resumes_where_it_stopped(store: MediaStore, root: Path) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    offset = await upload_offset(store, "a.mp4", CLIP)
    assert 2_000_000 < offset <= 3_000_000
    rest = FakeBody(CLIP[offset:])
    reply = await store.put(request("PUT", "a.mp4", announced(CLIP, offset=offset), rest))
    assert reply.status == 201
    assert (root / "a.mp4").read_bytes() == CLIP
    assert parts(root) == []


async def test_a_file_can_be_uploaded_in_pieces(store: MediaStore, root: Path) -> None:
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


async def test_an_upload_may_resume_at_an_earlier_offset(store: MediaStore, root: Path) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    headers = announced(CLIP, offset=1_000_000)
    await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[1_000_000:])))
    assert (root / "a.mp4").read_bytes() == CLIP


async def test_a_put_of_the_whole_file_replaces_a_part(store: MediaStore, root: Path) -> None:
    await break_off(store, "a.mp4", CLIP, after=3_000_000)
    assert (await put(store, "a.mp4", CLIP)).status == 201
    assert parts(root) == []


async def test_a_restarted_upload_does_not_count_the_bytes_of_an_earlier_part(
    store: MediaStore,
) -> None:
    await break_off(store, "a.mp4", CLIP, after=4_000_000)
    await break_off(store, "a.mp4", CLIP, after=2_000_000)
    assert await upload_offset(store, "a.mp4", CLIP) <= 2_000_000


async def test_resuming_beyond_the_received_bytes_is_a_conflict_that_names_the_right_offset(
    store: MediaStore,
) -> None:
    await break_off(store, "a.mp4", CLIP, after=2_000_000)
    offset = await upload_offset(store, "a.mp4", CLIP)
    headers = announced(CLIP, offset=offset + 1)
    with pytest.raises(Conflict) as caught:
        await store.put(request("PUT", "a.mp4", headers, FakeBody(CLIP[offset + 1 :])))
    assert caught.value.headers["X-Upload-Offset"] == str(offset)
    assert await upload_offset(store, "a.mp4", CLIP) == offset


async def test_a_part_that_was_damaged_on_disk_is_detected_and_dropped(
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


async def test_a_file_that_is_stored_already_needs_no_upload(store: MediaStore) -> None:
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
        body = FakeBody(CLIP[:2_000_000], gate=trio.Event(), arrived=arrived)
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
            body = FakeBody(CLIP[:3_000_000], gate=trio.Event(), arrived=arrived)
            nursery.start_soon(store.put, request("PUT", "a.mp4", announced(CLIP), body))
            await arrived.wait()
            nursery.cancel_scope.cancel()
    assert await upload_offset(store, "a.mp4", CLIP) > 2_000_000


async def test_parts_that_nobody_resumes_expire(tmp_path: Path) -> None:
    settings = MediaSettings(reserve_bytes=0, part_keep_s=3600)
    await break_off(MediaStore(tmp_path, settings), "old.mp4", CLIP, after=1_000)
    [old] = parts(tmp_path)
    os.utime(old, (0, 0))
    await break_off(MediaStore(tmp_path, settings), "new.mp4", CLIP, after=1_000)
    assert len(parts(tmp_path)) == 1
    assert parts(tmp_path) != [old]
