"""Decode an output to verify it: from its file, or from a pipe while it is encoded.

Where no ffmpeg here has a decoder for it, every frame's headers are parsed instead, and the result
says so: the check is then called `parses` instead of `decodes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distconv_engine.encode.command import Request
from distconv_engine.encode.plan import Plan
from distconv_engine.failures import InputFault, InsufficientSpace, VerificationFault
from distconv_engine.ffmpeg.codecs import video_codec
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.media.ffmpeg import Decoder, Ffmpeg
from distconv_engine.media.packet_hashes import PacketHashes
from distconv_engine.media.packets import PacketScan


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


def decoder_of(request: Request) -> Decoder:
    """Return the decoder of the output: this engine's best, or else a parser of every header."""
    if request.reader is not None:
        return Decoder(request.reader)
    parser = video_codec(request.encoder.codec).parser
    parse = ("-bsf:v", parser) if parser else ()
    return Decoder(request.tools.ffmpeg, ("-c:v", "copy", *parse))


async def decode_pipe(ffmpeg: Ffmpeg, request: Request, stdin: int) -> Decoded:
    """Decode the video and audio that arrive through the pipe `stdin`, and hash their packets."""
    result, hashes = await ffmpeg.decode_and_hash(decoder_of(request), stdin)
    return Decoded(result, hashes)


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
