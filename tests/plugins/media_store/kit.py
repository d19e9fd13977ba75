"""Act as an engine on a media store: put a file, break off, ask how much has arrived."""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio

from distconv_plugins.media_store.plugin import MediaStore
from distconvd.edge.http import BodyReader, ClientDisconnected, Request, Response

CLIP = bytes(range(256)) * 20_000  # some 5 MB: several pieces


class FakeBody:
    """A body that arrives in chunks, and may break off or wait."""

    def __init__(
        self,
        data: bytes,
        *,
        breaks_off: bool = False,
        gate: trio.Event | None = None,
        arrived: trio.Event | None = None,
    ) -> None:
        self.data, self.breaks_off, self.gate, self.arrived = data, breaks_off, gate, arrived

    async def read_whole(self, limit_bytes: int | None) -> bytes:
        raise AssertionError("a media file must never be read whole")

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 65_536):
            await trio.lowlevel.checkpoint()
            yield self.data[start : start + 65_536]
        if self.arrived is not None:
            self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
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
    """Return the headers that an engine sends with (a part of) `data`."""
    end = len(data) if end is None else end
    headers = {"content-length": str(end - offset), "repr-digest": digest_of(data)}
    if offset or end < len(data):
        headers["content-range"] = f"bytes {offset}-{end - 1}/{len(data)}"
    return headers


async def body_of(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


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
