"""Copy an output to several consumers while ffmpeg writes it into a named pipe.

The consumers are the digest, the processes that read the output, and the body of an upload. That
body may be slow, but never falls silent, since servers give up on a silent client: a reserve is
kept back and sent in small pieces while the encoder is busy or the verification finishes. Its end
is withheld until `finish_body`, so that nobody takes an unproved output for a complete one.

Resource handling: descriptors and the named pipe are there until `aclose`.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

T = TypeVar("T")
_PIECE_BYTES = 1 << 16
_QUEUED_PIECES = 16
_RESERVE_BYTES = 1 << 20
_TRICKLE_BYTES = 1 << 13
_TRICKLE_S = 5.0


class Tee:
    """Reads the output from the named pipe and copies each piece to every consumer."""

    def __init__(self, fifo: Path) -> None:
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self._fifo = fifo
        os.mkfifo(fifo, 0o600)
        # Open before ffmpeg opens it, so that neither waits for the other.
        self._descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._source = trio.lowlevel.FdStream(self._descriptor)
        self._readers: list[trio.lowlevel.FdStream] = []
        self._ends: list[int] = []
        self._send, self._receive = trio.open_memory_channel[bytes](_QUEUED_PIECES)

    def connect(self, reader: Callable[[int], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return a task that runs `reader` with a descriptor of all of the output.

        To be called before `run` starts.
        """
        end, start = os.pipe2(os.O_CLOEXEC)
        self._ends.append(end)
        self._readers.append(trio.lowlevel.FdStream(start))

        async def read() -> T:
            found = await reader(end)
            # Its process has ended and needs no further output.
            self._ends.remove(end)
            os.close(end)
            return found

        return read

    async def run(self) -> None:
        """Copy everything until ffmpeg has closed its end."""
        # Until ffmpeg has opened the pipe, a read would return its end.
        await trio.lowlevel.wait_readable(self._descriptor)
        while piece := await self._source.receive_some(_PIECE_BYTES):
            self.digest.update(piece)
            self.size_bytes += len(piece)
            for reader in list(self._readers):
                await self._forward(reader, piece)
            await self._send.send(piece)
        for reader in self._readers:
            await reader.aclose()
        self._readers.clear()

    async def _forward(self, reader: trio.lowlevel.FdStream, piece: bytes) -> None:
        try:
            await reader.send_all(piece)
        except trio.BrokenResourceError:  # it needs no more, like ffprobe after the header
            self._readers.remove(reader)
            await reader.aclose()

    def finish_body(self) -> None:
        """Let the body end: the output is proved."""
        self._send.close()

    async def body(self) -> AsyncIterator[bytes]:
        """Iterate over what to send; it ends only after `finish_body`."""
        reserve = bytearray()
        while True:
            piece = None
            with trio.move_on_after(_TRICKLE_S):
                try:
                    piece = await self._receive.receive()
                except trio.EndOfChannel:
                    break
            if piece is not None:
                reserve += piece
            due = len(reserve) - _RESERVE_BYTES if piece is not None else _TRICKLE_BYTES
            if due > 0 and reserve:
                yield bytes(reserve[:due])
                del reserve[:due]
        if reserve:
            yield bytes(reserve)

    async def aclose(self) -> None:
        """Close all descriptors and remove the named pipe."""
        self._send.close()
        self._receive.close()
        for end in self._ends:
            os.close(end)
        for stream in (self._source, *self._readers):
            await stream.aclose()
        self._fifo.unlink(missing_ok=True)
