"""Decode the output while it is encoded, on the CPU time that the encoder leaves idle.

An encoder seldom keeps every core busy, and decoding costs a twentieth of what encoding does. So
ffmpeg's tee muxer passes each packet to two muxers: one writes the file, the other sends video and
audio, in the streamable form of the same container, through a pipe to a decoder. The decoder runs
at a low priority; if it cannot keep up, it is stopped.

What was decoded is not the file, so this alone proves nothing about the file: `verify` still reads
it from the disk, and accepts the decoder's result only if the file's packets are byte for byte
those that were decoded. Whatever goes wrong here (the decoder dies, hangs or finds a fault) only
means that the file is decoded afterwards, as it is without a concurrent decode.

The tee muxer must not change the file: same packets, same times. So an output that it would change
is decoded afterwards: one with chapters, which it loses, and TS, whose clock would start elsewhere.
So is audio alone, which decodes in no time, and whatever this engine cannot decode.
"""

import fcntl
import os
import re
import select
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import trio

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.decode import Decoded, decode_pipe, is_faulty
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request
from distconv_engine.encode.run import Encoded, is_batch_work
from distconv_engine.failures import EngineFault
from distconv_engine.files import describe_fault
from distconv_engine.pipeline.encoder_choice import run_encode
from distconv_engine.tasks import open_tasks

_MORE_NICENESS, _MORE_NICENESS_SMALL = 19, 10
"""The decoder's niceness beyond the encoder's, of which it takes hardly any CPU time. Linux's SCHED_IDLE
would take none, but on a busy machine the decoder would then take seconds to die. With small pictures
the encode is short, and a decoder that gets hardly any CPU time has most of its work still to do at
the end of it."""
_PIPE_BYTES = 1 << 20
"""How far the decoder may lag behind before the encoder has to wait."""
_POLL_S = 0.25
_BLOCKED_S = 2.0
"""If the pipe was full at every poll for this long, the decoder is blocking the encoder."""
_TAIL_SHARE = 0.05
"""How much later than the encoder the decoder may end, as a share of the encoder's time: decoding
the whole file afterwards would hardly take longer."""
_TAIL_S_MIN = 1.0
_NO_HEADER = re.compile(r"\[tee @ .*error writing header")
"""A copied stream has a tag from its source that the muxer rejects when it is behind the tee."""


def can_decode_concurrently(request: Request) -> bool:
    """Whether this output can be decoded while it is encoded."""
    plan = request.plan
    keeps_all = not (plan.container.family.tee_shifts_clock or plan.keep_chapters)
    return request.reader is not None and plan.video is not None and keeps_all


async def encode_and_decode(
    attempt: Attempt, source: CheckedSource, request: Request, path: Path
) -> tuple[Encoded, Decoded | None]:
    """Encode `request` into `path`, in the attempt's folder, and decode it at the same time.

    Returns the encode, and what was decoded if that is complete and valid.
    """
    if not can_decode_concurrently(request):
        return await run_encode(attempt, source, request), None
    decoder = _Decoder(attempt, request)
    # Some characters have a meaning to the tee muxer, so it gets a file name without them,
    # relative to the attempt's folder.
    teed = replace(request, output=f"file:{path.name}", tee_fd=decoder.write_end)
    try:
        async with open_tasks() as tasks:
            # Decode in a task of its own, as the encoder blocks while the pipe is full. It begins
            # when this block first waits, which is when the encoder has been started. The end of
            # the block waits for the decoder to finish the rest, or to be stopped; if the encode
            # fails, nothing is worth decoding, and the decoder is cancelled.
            decoded = tasks.start(decoder.run)
            encoded = await _encode_into(decoder, attempt, source, teed)
    except EngineFault as failure:
        if not _NO_HEADER.search(failure.log_tail or ""):
            raise
        # Without the tee, the muxer chooses the tag itself: encode again. This costs little, as a
        # header fails before the first frame.
        attempt.log.info("ffmpeg's tee muxer rejects this output", reason=failure.message)
        return await run_encode(attempt, source, request), None
    return encoded, decoded.value


async def _encode_into(
    decoder: "_Decoder", attempt: Attempt, source: CheckedSource, teed: Request
) -> Encoded:
    try:
        return await run_encode(attempt, source, teed)
    finally:
        # Close our copy of the pipe's write end; while it is open, the decoder sees no end.
        decoder.end()


class _Decoder:
    """Decodes what arrives through its pipe."""

    def __init__(self, attempt: Attempt, request: Request) -> None:
        self._attempt = attempt
        self._request = request
        self._read_end, self.write_end = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # Fails where this user's pipes have used up their quota: the default size will do.
            with suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._encoder_ended = trio.Event()

    async def run(self) -> Decoded | None:
        """Decode until the pipe ends; returns None if the decoder was stopped, or proved nothing."""
        found: Decoded | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                found = await self._decode()
                nursery.cancel_scope.cancel()  # nothing is left to watch
            return found
        finally:
            # Without a reader, writes to the pipe fail instead of blocking the encoder, and the
            # tee muxer ignores a failed branch (`onfail=ignore`).
            os.close(self._read_end)

    def end(self) -> None:
        """Let the decoder see the end of the pipe: the encoder has ended."""
        os.close(self.write_end)
        self._encoder_ended.set()

    async def _decode(self) -> Decoded | None:
        # No stall limit, as it waits for a slow encoder; `_watch` limits it instead.
        is_small = not is_batch_work(self._request)
        ffmpeg = self._attempt.ffmpeg.in_background(
            _MORE_NICENESS_SMALL if is_small else _MORE_NICENESS
        )
        try:
            decoded = await decode_pipe(ffmpeg, self._request, self._read_end)
        except (EngineFault, OSError) as error:
            self._log_unused(describe_fault(error))
            return None
        # A fault seen here may come from the pipe or a killed decoder: decoding the file decides.
        diagnosis = decoded.result.diagnosis
        if decoded.result.code or is_faulty(diagnosis) or diagnosis.doubts:
            self._log_unused((diagnosis.damage or [diagnosis.tail])[0])
            return None
        # The pipe carries video and audio only, so its streams are numbered without the others.
        return decoded.renumbered([index for index, _ in self._request.plan.av_streams])

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Stop the decoder when it makes the encoder, or the end of the attempt, wait."""
        began_at, blocked_s = trio.current_time(), 0.0
        # 1. While the encoder runs: a full pipe blocks it. One full poll may be chance, so only
        #    `_BLOCKED_S` of them in a row count. While the attempt is paused, so is the decoder,
        #    and a full pipe means nothing.
        while not self._encoder_ended.is_set() and blocked_s < _BLOCKED_S:
            with trio.move_on_after(_POLL_S):
                await self._encoder_ended.wait()
            waits = not self._encoder_ended.is_set() and not self._attempt.controls.paused
            blocked_s = blocked_s + _POLL_S if waits and self._is_full() else 0.0
        # 2. After the encoder's end: waiting pays only while it is shorter than decoding the file
        #    again. A decoder that finishes in time cancels this task (see `run`).
        if self._encoder_ended.is_set():
            await trio.sleep(max(_TAIL_S_MIN, _TAIL_SHARE * (trio.current_time() - began_at)))
        # 3. Too slow in either case: stop it, and let `verify` decode the file.
        self._log_unused("the decoder got too little CPU time")
        scope.cancel()

    def _is_full(self) -> bool:
        poll = select.poll()
        poll.register(self.write_end, select.POLLOUT)
        return not poll.poll(0)

    def _log_unused(self, reason: str) -> None:
        self._attempt.log.info("output was not decoded during its encode", reason=reason)
