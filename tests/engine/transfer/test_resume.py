"""Test uploads to the media store of a real daemon, over a connection that breaks."""

import hashlib
import os
import re
from pathlib import Path

import httpx
import pytest
import trio
from tests.daemon.kit import KEY, start

from distconv_engine.backoff import Backoff
from distconv_engine.transfer.destination import HttpTarget
from distconv_engine.transfer.publish import publish_http

pytestmark = pytest.mark.e2e


class BreakingProxy:
    """A TCP proxy in front of the daemon that breaks on request and keeps the request heads."""

    def __init__(self, port: int, breaks_after: list[int]) -> None:
        self.heads: list[bytes] = []
        self._port = port
        self._breaks_after = breaks_after

    async def relay(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._back, far, near, nursery)
            await self._forth(near, far)
            nursery.cancel_scope.cancel()

    async def _forth(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        limit, seen = None, 0
        while piece := await near.receive_some():
            self.heads += re.findall(rb"(?:PUT|HEAD) /.*?\r\n\r\n", piece, re.DOTALL)
            if b"PUT /" in piece and self._breaks_after:
                limit, seen = self._breaks_after.pop(0), 0
            seen += len(piece)
            if limit is not None and seen > limit:
                await far.send_all(piece[: len(piece) - (seen - limit)])
                return
            await far.send_all(piece)

    async def _back(
        self, far: trio.SocketStream, near: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        try:
            while piece := await far.receive_some():
                await near.send_all(piece)
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()


async def test_an_upload_continues_where_its_connection_broke(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda _: 0.2)
    content = os.urandom(8_000_000)
    path = tmp_path / "output.mp4"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    with start(cwd=tmp_path) as daemon:
        proxy = BreakingProxy(daemon.port, [3_000_000, 2_000_000])
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, proxy.relay, [listener])
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/media/1_1/a.mp4"
            fractions: list[float] = []
            await publish_http(
                client,
                path,
                sha256,
                HttpTarget(url, is_media_store=True),
                key=KEY,
                content_type="video/mp4",
                on_progress=fractions.append,
            )
            nursery.cancel_scope.cancel()
        status, stored = daemon.ask("GET", "/media/1_1/a.mp4")
    assert (status, hashlib.sha256(stored).hexdigest()) == (200, sha256)
    text = b"".join(proxy.heads).decode()
    starts = [int(first) for first in re.findall(r"bytes (\d+)-7999999/8000000", text)]
    assert len(starts) == 2
    assert 1_000_000 < starts[0] < starts[1] < 5_100_000
    assert text.count("HEAD /") == 2
    assert fractions[-1] == 1.0
