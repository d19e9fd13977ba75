"""Decode an output to verify it: from its file, or from a pipe while it is encoded.

Where no ffmpeg here has a decoder for it, every frame's headers are parsed instead, and the result
says so: the check is then called `parses` instead of `decodes`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distconv_engine.encode.command import Request
from distconv_engine.encode.plan import Plan
from distconv_engine.failures import InputFault, InsufficientSpace, VerificationFault
from distconv_engine.ffmpeg.child import LineSplitter
from distconv_engine.ffmpeg.inputs import STDIN, read_arguments
from distconv_engine.ffmpeg.progress import EncodeProgress, ProgressParser
from distconv_engine.ffmpeg.run import Controls, RunResult, run
from distconv_engine.ffmpeg.stderr import LOG_LEVEL, Diagnosis
from distconv_engine.media.packet_hashes import HASH, PacketHashes
from distconv_engine.media.packets import PacketScan

_PARSERS = {
    "av1": "av1_metadata",
    "hevc": "hevc_metadata",
    "h264": "h264_metadata",
    "vp9": "vp9_metadata",
}
"""Bitstream filters that parse every header of a codec."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of a decode, and the hashes of the packets that were decoded."""

    result: RunResult
    hashes: PacketHashes

    def renumbered(self, indices: Sequence[int]) -> "Decoded":
        """Return the same with stream `n` as stream `indices[n]`."""
        diagnosis, hashes = replace(self.result.diagnosis, read={}), PacketHashes()
        for number, index in enumerate(indices):
            if read := self.result.diagnosis.read.get(number):
                diagnosis.read[index] = read
            hashes.streams[index] = self.hashes.of(number)
        return Decoded(replace(self.result, diagnosis=diagnosis), hashes)

    def is_of(self, plan: Plan, scan: PacketScan, hashes: PacketHashes) -> bool:
        """Whether a scanned file has exactly the decoded packets, and hides no video packet."""
        for index, stream_out in plan.av_streams:
            read, found = self.result.diagnosis.read.get(index), scan.of(index)
            if read is None or not read.packets == found.count == hashes.of(index).count:
                return False
            if self.hashes.of(index) != hashes.of(index) or (
                stream_out.stream.is_video and found.hidden
            ):
                return False
        return True


async def decode_output(
    request: Request,
    url: str,
    controls: Controls,
    on_progress: Callable[[float], None],
    duration_s: float,
    *,
    stdin: int | None = None,
) -> RunResult:
    """Decode all video and audio of the output."""
    last = [EncodeProgress()]

    def take(progress: EncodeProgress) -> None:
        last[0] = progress
        on_progress(progress.fraction(duration_s))

    return await run(
        [*_decoder(request, url), "-progress", "pipe:1"],
        controls,
        on_stdout=LineSplitter(ProgressParser(take).line).feed,
        sign_of_life=lambda: last[0],
        stdin=stdin,
    )


async def decode_pipe(request: Request, stdin: int, controls: Controls) -> Decoded:
    """Decode the video and audio that arrive through the pipe `stdin`, and hash their packets."""
    hashes = PacketHashes()
    # Threads have a cost, and one for every second core keeps up with an encoder.
    threads = max(1, (os.cpu_count() or 1) // 2)
    argv = [*_decoder(request, STDIN, "-threads", str(threads)), "-map", "0", "-c", "copy"]
    # Without this, ffmpeg would wake this process for each packet.
    argv += ["-flush_packets", "0", "-f", "framehash", "-hash", HASH, "pipe:1"]
    lines = LineSplitter(hashes.framehash_line)
    # No grace: at its low priority it would take long to end by itself on a busy machine.
    result = await run(argv, controls, on_stdout=lines.feed, stdin=stdin, grace_s=0)
    lines.close()
    return Decoded(result, hashes)


def _decoder(request: Request, url: str, *options: str) -> list[str]:
    """Return the arguments that decode everything, with `options`, and discard the frames.

    The loop filter only smooths pictures and takes a third of the time, so it is skipped.
    """
    program = request.reader or request.tools.ffmpeg
    argv = [program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", LOG_LEVEL]
    argv += ["-skip_loop_filter", "all", *options, *read_arguments(url)]
    argv += ["-map", "0:V?", "-map", "0:a?", "-fps_mode", "passthrough"]
    if request.reader is None:
        parser = _PARSERS.get(request.encoder.codec)
        argv += ["-c:v", "copy", *(["-bsf:v", parser] if parser else [])]
    return [*argv, "-f", "null", "-"]


def check_unaltered(decoded: Decoded, plan: Plan, hashes: PacketHashes) -> None:
    """Raise for a file whose packets have the decoded sizes, but other bytes in them; pure.

    Such packets may decode without an error, so decoding the file would not find this.
    """
    for index, stream_out in plan.av_streams:
        made, found = decoded.hashes.of(index), hashes.of(index)
        is_alike = (made.count, made.total_bytes) == (found.count, found.total_bytes)
        if is_alike and made.chain != found.chain:
            raise VerificationFault(
                f"{stream_out.stream.label}: the disk returned other bytes than the encoder wrote."
            )


def check_decoding(request: Request, result: RunResult) -> None:
    """Raise the failure of an output that does not decode completely; pure."""
    diagnosis = result.diagnosis
    if diagnosis.disk_full:
        raise InsufficientSpace("The engine's disk is full.", log_tail=diagnosis.tail)
    if diagnosis.damage or diagnosis.decode_errors or result.code != 0:
        _attribute_fault(request, diagnosis)


def _attribute_fault(request: Request, diagnosis: Diagnosis) -> None:
    """Raise for an output that does not decode: a copied stream is the source's fault."""
    found = (diagnosis.damage or ["some frames cannot be decoded"])[0]
    copied = [
        stream_out for stream_out in request.plan.output_streams if stream_out.action == "copy"
    ]
    made = {
        stream_out.codec
        for stream_out in request.plan.output_streams
        if stream_out.action == "encode"
    }
    bad = {count.kind for count in diagnosis.read.values() if count.errors}
    for stream_out in copied:
        if stream_out.codec not in made and (
            found.startswith(stream_out.codec) or stream_out.stream.kind in bad
        ):
            raise InputFault(
                f"The source is damaged: {stream_out.stream.label}: {found}",
                log_tail=diagnosis.tail,
            )
    raise VerificationFault(f"The output does not decode: {found}", log_tail=diagnosis.tail)
