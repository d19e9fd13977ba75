"""Encoding, with the output's decoder running beside it: it uses what the encoder leaves idle.

An encoder seldom keeps every core busy, and decoding costs a twentieth of what encoding does. So
ffmpeg's tee muxer hands each packet to two muxers: one writes the file, the other passes the
pictures and sounds, in the live form of the same container, through a pipe to a decoder. This one
takes little but what is idle; when that is too little to keep up, it is given up.

What was decoded is not the file, so this alone proves nothing about it: `verify` reads the file
from the disk all the same, and takes the decoder's word only if the file's packets are byte for
byte those that were decoded. Whatever goes wrong here (a decoder that dies, stands still or finds
a fault) only means that the file is decoded afterwards, as if nothing had been done beside.

The file has the same packets at the same times as without the tee muxer. So what that would change
is not done beside: chapters, which it loses, and TS, whose clock begins elsewhere. Nor is sound
alone, which decodes in no time, and what this engine cannot decode.
"""

import fcntl
import os
import re
import select
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import trio

from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.checks.decode import Decoded, decode_pipe
from distconv_engine.checks.source import Source
from distconv_engine.encode.command import Request
from distconv_engine.failures import EngineFault, JobFailure
from distconv_engine.pipeline.encoder_choice import Work, encode_to

_NICEST = 19
"""The decoder's niceness: it hardly takes any of the encoder's time. With Linux's SCHED_IDLE it would
take none, but where others want the cores it would take seconds to die."""
_PIPE_BYTES = 1 << 20
"""So much the decoder may lag behind before the encoder waits."""
_POLL_S = 0.25
_BLOCKED_S = 2.0
"""The encoder waited so long, at every look: others leave the decoder too little."""
_TAIL_SHARE = 0.05
"""The decoder may end so much later than the encoder, as a part of the encoder's time: decoding
everything once more would hardly take longer."""
_TAIL_S_MIN = 1.0
_NO_HEADER = re.compile(r"\[tee @ .*error writing header")
"""A stream to be copied that its muxer would take, but not with the tag that it has in its source."""


def can_decode_concurrently(request: Request) -> bool:
    """Whether this output can be decoded while it is made."""
    plan = request.plan
    keeps_all = plan.container.name != "ts" and not plan.keep_chapters
    return request.reader is not None and plan.video is not None and keeps_all


async def encode_and_decode(
    context: EngineContext, attempt: Attempt, source: Source, request: Request, path: Path
) -> Work:
    """Run the encode of `request` into `path`, in the attempt's folder, and decode it meanwhile."""
    if not can_decode_concurrently(request):
        return await encode_to(request, attempt, source, path)
    decoder = _Decoder(context, attempt, request)
    work: Work | None = None
    failure: JobFailure | OSError | None = None
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(decoder.run)
            # The tee muxer has a syntax of its own for names, so it gets one without any.
            teed = replace(request, output=f"file:{path.name}", tee_fd=decoder.write_end)
            work = await encode_to(teed, attempt, source, path)
        except (JobFailure, OSError) as error:
            failure = error
            nursery.cancel_scope.cancel()
        finally:
            decoder.end()
    if failure is not None:
        if isinstance(failure, EngineFault) and _NO_HEADER.search(failure.log_tail or ""):
            context.log.info("ffmpeg's tee muxer cannot take this output", reason=failure.message)
            return await encode_to(request, attempt, source, path)
        raise failure
    assert work is not None
    return Work(request, work.encoded, path, decoder.found)


class _Decoder:
    """Decodes what comes through its pipe; `found` is None where that proved nothing."""

    def __init__(self, context: EngineContext, attempt: Attempt, request: Request) -> None:
        self._log = context.log.bind(job_id=attempt.job.job_id, attempt=attempt.job.attempt)
        self._attempt = attempt
        self._request = request
        self._read_end, self.write_end = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # This user's pipes may have used up their share: a small one will do.
            with suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.found: Decoded | None = None
        self._encoder_ended = trio.Event()

    async def run(self) -> None:
        """Decode until the end of the pipe, or until it is given up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await self._decode()
                nursery.cancel_scope.cancel()
        finally:
            os.close(self._read_end)  # a decoder that has gone must not hold the encoder up

    def end(self) -> None:
        """The encoder has ended: let the decoder see it."""
        os.close(self.write_end)
        self._encoder_ended.set()

    async def _decode(self) -> None:
        given = self._attempt.controls
        nicest = replace(given.limits, niceness=_NICEST)
        # Shares the set of children, so that it is paused and ended with the others. One that
        # stands still is found by `_watch`.
        controls = replace(given, limits=nicest, stall_s=float("inf"))
        try:
            decoded = await decode_pipe(self._request, self._read_end, controls)
        except (EngineFault, OSError) as error:
            self._give_up(str(error))
            return
        diagnosis = decoded.result.diagnosis
        if decoded.result.code or diagnosis.damage or diagnosis.decode_errors:
            self._give_up((diagnosis.damage or [diagnosis.tail])[0])
            return
        self.found = decoded.renumbered([index for index, _ in self._request.plan.av_streams])

    async def _watch(self, scope: trio.CancelScope) -> None:
        """End the decoder once the encoder, or its attempt, waits for it."""
        began_at, blocked_s = trio.current_time(), 0.0
        while not self._encoder_ended.is_set() and blocked_s < _BLOCKED_S:
            with trio.move_on_after(_POLL_S):
                await self._encoder_ended.wait()
            waits = not self._encoder_ended.is_set() and not self._attempt.controls.paused
            blocked_s = blocked_s + _POLL_S if waits and self._is_full() else 0.0
        if self._encoder_ended.is_set():
            await trio.sleep(max(_TAIL_S_MIN, _TAIL_SHARE * (trio.current_time() - began_at)))
        self._give_up("the others leave its decoder too little time")
        scope.cancel()

    def _is_full(self) -> bool:
        poll = select.poll()
        poll.register(self.write_end, select.POLLOUT)
        return not poll.poll(0)

    def _give_up(self, reason: str) -> None:
        self._log.info("output not decoded beside its encode", reason=reason)
