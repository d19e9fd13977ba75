"""Encoding, with the output's decoder running beside it: it uses what the encoder leaves idle.

An encoder seldom keeps every core busy, and decoding costs a twentieth of what encoding does. So
ffmpeg's tee muxer hands each packet to two muxers: one writes the file, the other passes the
pictures and sounds, in the live form of the same container, through a pipe to a decoder.

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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import trio

from distconv_engine.attempt import Attempt, Workshop
from distconv_engine.command import Request
from distconv_engine.decoding import Decoded, decode_pipe
from distconv_engine.encoding import Work, encode_to
from distconv_engine.failures import EngineFault, JobFailure
from distconv_engine.source_check import Source

_STALL_SHARE = 0.5
"""A decoder that stands still is ended well before the encoder, blocked by it, would be."""
_NICER = 5
"""How much farther than the encoder the decoder stands back; not so far that it holds it up."""
_PIPE_BYTES = 1 << 20
"""So much the decoder may lag behind before the encoder waits."""
_NO_HEADER = re.compile(r"\[tee @ .*error writing header")
"""A stream to be copied that its muxer would take, but not with the tag that it has in its source."""


def can_decode_beside(request: Request) -> bool:
    """Whether this output can be decoded while it is made."""
    plan = request.plan
    keeps_all = plan.container.name != "ts" and not plan.keep_chapters
    return request.reader is not None and plan.video is not None and keeps_all


async def encode_and_decode(
    shop: Workshop, attempt: Attempt, source: Source, request: Request, path: Path
) -> Work:
    """Run the encode of `request` into `path`, in the attempt's folder, and decode it meanwhile."""
    if not can_decode_beside(request):
        return await encode_to(request, attempt, source, path)
    decoder = _Decoder(shop, attempt, request)
    work: Work | None = None
    failure: JobFailure | OSError | None = None
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(decoder.run)
            # The tee muxer has a syntax of its own for names, so it gets one without any.
            teed = replace(request, output=f"file:{path.name}", twin=decoder.write_end)
            work = await encode_to(teed, attempt, source, path)
        except (JobFailure, OSError) as error:
            failure = error
            nursery.cancel_scope.cancel()
        finally:
            os.close(decoder.write_end)  # now the decoder sees the end
    if failure is not None:
        if isinstance(failure, EngineFault) and _NO_HEADER.search(failure.log_tail or ""):
            shop.log.info("ffmpeg's tee muxer cannot take this output", reason=failure.message)
            return await encode_to(request, attempt, source, path)
        raise failure
    assert work is not None
    return Work(request, work.encoded, path, decoder.found)


class _Decoder:
    """Decodes what comes through its pipe; `found` is None where that proved nothing."""

    def __init__(self, shop: Workshop, attempt: Attempt, request: Request) -> None:
        self._log = shop.log.bind(job_id=attempt.job.job_id, attempt=attempt.job.attempt)
        self._attempt = attempt
        self._request = request
        self._read_end, self.write_end = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # This user's pipes may have used up their share: a small one will do.
            with suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.found: Decoded | None = None

    async def run(self) -> None:
        """Decode until the end of the pipe."""
        attempt = self._attempt
        given = attempt.controls
        nicer = replace(given.limits, niceness=min(19, given.limits.niceness + _NICER))
        # Shares the set of children, so that it is paused and ended with the others.
        controls = replace(given, limits=nicer, stall_s=given.stall_s * _STALL_SHARE)
        try:
            decoded = await decode_pipe(
                self._request, self._read_end, controls, lambda: attempt.tracker.version
            )
        except (EngineFault, OSError) as error:
            self._give_up(str(error))
            return
        finally:
            os.close(self._read_end)  # a decoder that has gone must not hold the encoder up
        diagnosis = decoded.ended.diagnosis
        if decoded.ended.code or diagnosis.damage or diagnosis.decode_errors:
            self._give_up((diagnosis.damage or [diagnosis.tail])[0])
            return
        self.found = decoded.renumbered([index for index, _ in self._request.plan.played])

    def _give_up(self, reason: str) -> None:
        self._log.info("output not decoded beside its encode", reason=reason)
