"""Upload an output while it is encoded, and verify it at the same time.

ffmpeg writes into a named pipe. Its output is copied four ways: to the digest, to the two ffprobes
and the decoder that `verify` would run on a file, and into the body of a PUT. The end of that body
is withheld until the output has been verified, so a server never gets a complete bad output: a
failure breaks the request off. Nothing is written to this engine's disk.

The body may be slow, but never falls silent, since servers give up on a silent client: a reserve is
kept back and sent in small pieces while the encoder is busy or the verification finishes. A broken
upload cannot be resumed, because no copy of what was sent exists: the attempt fails as `transient`.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.checks.decode import decode_output
from distconv_engine.checks.output import Evidence, Verified, check_output, probe_output
from distconv_engine.checks.source import Source
from distconv_engine.encode.command import Request
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    JobFailure,
    TransientFault,
    VerificationFault,
)
from distconv_engine.ffmpeg.inputs import STDIN
from distconv_engine.ffmpeg.run import Controls, RunResult
from distconv_engine.files import describe_fault
from distconv_engine.key import with_key
from distconv_engine.media.packets import PacketScan, scan_packets
from distconv_engine.media.probe import Probe
from distconv_engine.pipeline.encoder_choice import Work, encode_to
from distconv_engine.transfer.destination import HttpTarget
from distconv_engine.transfer.publish import PUT_TIMEOUT, content_type_of

_PIECE_BYTES = 1 << 16
_QUEUED_PIECES = 16
_RESERVE_BYTES = 1 << 20
_TRICKLE_BYTES = 1 << 13
_TRICKLE_S = 5.0
_READ_BACK_TRIES = 3
_NOT_READABLE = frozenset({401, 403, 404, 405, 410, 501})
"""Some targets can be written to but not read from, such as a pre-signed URL."""


@dataclass(slots=True)
class _Findings:
    """What the concurrent readers have found; each is set when its reader has ended."""

    found: Probe | InputFault | None = None
    scan: PacketScan | None = None
    decoded: RunResult | None = None


class _Tee:
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

    def open_reader(self) -> int:
        """Return a descriptor from which all of the output can be read."""
        end, start = os.pipe2(os.O_CLOEXEC)
        self._ends.append(end)
        self._readers.append(trio.lowlevel.FdStream(start))
        return end

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

    def close_reader(self, end: int) -> None:
        """Close a reader's descriptor: its process has ended and needs no further output."""
        self._ends.remove(end)
        os.close(end)

    def finish_body(self) -> None:
        """Let the body end: the output has been verified."""
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


@dataclass(slots=True)
class _Run:
    """What the tasks of one streaming upload share."""

    context: EngineContext
    attempt: Attempt
    source: Source
    request: Request
    tee: _Tee
    target: HttpTarget
    findings: _Findings = field(default_factory=_Findings)
    uploaded: trio.Event = field(default_factory=trio.Event)


async def encode_and_upload(
    context: EngineContext,
    attempt: Attempt,
    source: Source,
    request: Request,
    fifo: Path,
    target: HttpTarget,
    check_unchanged: Callable[[], Awaitable[None]],
) -> tuple[Work, Verified]:
    """Encode, verify and upload concurrently; returns when the server has accepted all of it."""
    tee = _Tee(fifo)
    run = _Run(context, attempt, source, request, tee, target)
    done: tuple[Work, Verified] | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_upload, run)
            done = await _encode_and_verify(run, fifo)
            await check_unchanged()
            tee.finish_body()
            await run.uploaded.wait()
    except* JobFailure as group:
        raise _first(group) from None
    finally:
        with trio.CancelScope(shield=True):
            await tee.aclose()
    assert done is not None
    return done


def _first(group: BaseExceptionGroup[JobFailure]) -> JobFailure:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _encode_and_verify(run: _Run, fifo: Path) -> tuple[Work, Verified]:
    work: Work | None = None
    async with trio.open_nursery() as nursery:
        for reader in (_probe, _scan, _decode):
            nursery.start_soon(reader, run, run.tee.open_reader())
        nursery.start_soon(run.tee.run)
        work = await encode_to(run.request, run.attempt, run.source, fifo)
    findings = run.findings
    assert work is not None
    assert findings.found is not None
    assert findings.scan is not None
    assert findings.decoded is not None
    digest, size = run.tee.digest.hexdigest(), run.tee.size_bytes
    evidence = Evidence(findings.found, findings.scan, findings.decoded, digest, size)
    return work, check_output(run.request, run.source, work.encoded, evidence)


def _without_stall_limit(controls: Controls) -> Controls:
    """Return the controls of a reader, which may wait for as long as the encoder takes.

    A reader that hangs is noticed all the same: it blocks the encode, which has a stall limit.
    """
    return Controls(controls.limits, float("inf"), paused=False)


async def _probe(run: _Run, end: int) -> None:
    controls = _without_stall_limit(run.attempt.controls)
    run.findings.found = await probe_output(run.request.tools, STDIN, controls, stdin=end)
    run.tee.close_reader(end)


async def _scan(run: _Run, end: int) -> None:
    controls = _without_stall_limit(run.attempt.controls)
    run.findings.scan = await scan_packets(run.request.tools, STDIN, controls, stdin=end)
    run.tee.close_reader(end)


async def _decode(run: _Run, end: int) -> None:
    controls = _without_stall_limit(run.attempt.controls)
    run.findings.decoded = await decode_output(
        run.request, STDIN, controls, lambda _: None, run.source.duration_s, stdin=end
    )
    run.tee.close_reader(end)


# ---------------------------------------------------------------------------------------- transfer


async def _upload(run: _Run) -> None:
    target, config = run.target, run.context.config
    key = config.api_key if target.is_media_store else None
    headers = with_key({"Content-Type": content_type_of(run.request.plan.container.name)}, key)
    try:
        reply = await run.context.client.put(
            target.url,
            content=run.tee.body(),
            headers=headers,
            timeout=PUT_TIMEOUT,
            follow_redirects=False,
        )
    except httpx.TransportError as error:
        reason = describe_fault(error)
        raise TransientFault(f"The output cannot be uploaded to {target.url}: {reason}.") from error
    except httpx.InvalidURL as error:
        raise InputFault(f"The output's URL does not work: {error}") from error
    if not reply.is_success:
        message = f"The output cannot be uploaded to {target.url}: it answered {reply.status_code}."
        busy = reply.status_code >= 500 or reply.status_code in (408, 425, 429)
        raise TransientFault(message) if busy else EngineFault(message)
    run.uploaded.set()


async def read_back(
    client: httpx.AsyncClient, target: HttpTarget, key: str | None, verified: Verified
) -> list[str]:
    """Read the uploaded output back; returns the check's name, or nothing if reading is forbidden.

    Raises:
        VerificationFault: the server has other bytes.
        TransientFault: the server is unavailable.
    """
    reason = ""
    for _ in range(_READ_BACK_TRIES):
        try:
            return await _read_back_once(client, target, key, verified)
        except httpx.TransportError as error:
            reason = describe_fault(error)
        await trio.sleep(1)
    raise TransientFault(f"The output cannot be read back from {target.url}: {reason}.")


async def _read_back_once(
    client: httpx.AsyncClient, target: HttpTarget, key: str | None, verified: Verified
) -> list[str]:
    headers = with_key({"Accept-Encoding": "identity"}, key)
    digest, size = hashlib.sha256(), 0
    async with client.stream(
        "GET", target.url, headers=headers, timeout=PUT_TIMEOUT, follow_redirects=not key
    ) as reply:
        if reply.status_code in _NOT_READABLE:
            return []
        if reply.status_code != 200:
            raise httpx.RemoteProtocolError(f"it answered {reply.status_code}")
        async for piece in reply.aiter_raw():
            digest.update(piece)
            size += len(piece)
    if (digest.hexdigest(), size) != (verified.sha256, verified.size_bytes):
        raise VerificationFault(
            f"{target.url} returned other bytes than were sent: {size} bytes instead of "
            f"{verified.size_bytes}, or with another SHA-256."
        )
    return ["target-read-back"]
