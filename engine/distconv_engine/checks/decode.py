"""Decode an output to verify it: from its file, or from a pipe while it is encoded.

Where no ffmpeg here has a decoder for it, every frame's headers are parsed instead, and the result
says so: the check is then called `parses` instead of `decodes`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distconv_engine.encode.command import Request
from distconv_engine.encode.plan import Plan
from distconv_engine.encode.run import Encoded
from distconv_engine.failures import InputFault, InsufficientSpace, VerificationFault
from distconv_engine.ffmpeg.codecs import video_codec
from distconv_engine.ffmpeg.messages import Confirmed
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


async def decode_file(
    ffmpeg: Ffmpeg,
    decoder: Decoder,
    url: str,
    *,
    duration_s: float,
    on_progress: Callable[[float], None] | None = None,
) -> RunResult:
    """Decode a file; if something is said of it that has to be confirmed, once more, strictly.

    Messages that the strict decode does not confirm are gone from the result.
    """
    result = await ffmpeg.decode(url, decoder, duration_s=duration_s, on_progress=on_progress)
    if result.code or is_faulty(result.diagnosis) or not result.diagnosis.doubts:
        return result
    strict = await ffmpeg.decode(url, decoder, duration_s=duration_s, strict=True)
    if strict.code or is_faulty(strict.diagnosis):
        return result
    return replace(result, diagnosis=replace(result.diagnosis, doubts={}))


async def confirm_source(
    ffmpeg: Ffmpeg, request: Request, encoded: Encoded, url: str, duration_s: float
) -> bool:
    """Ask a strict decode of the source about an unknown message of the encode.

    Returns whether there was such a message. Raises `InputFault` if it is confirmed.
    """
    unknown = [
        d for d in encoded.diagnosis.doubts.values() if d.kind.confirmed is Confirmed.BY_FRAMES
    ]
    if not unknown:
        return False
    decoder = Decoder(request.tools.ffmpeg)
    strict = await ffmpeg.decode(url, decoder, duration_s=duration_s, strict=True)
    if strict.code or is_faulty(strict.diagnosis):
        raise InputFault(
            f"The source is damaged: {unknown[0].words}", log_tail=encoded.diagnosis.tail
        )
    return True


def is_faulty(diagnosis: Diagnosis) -> bool:
    """Whether a decode has lost something, by what it proves itself."""
    return bool(diagnosis.damage or diagnosis.decode_errors)


def check_decoding(request: Request, result: RunResult) -> None:
    """Raise the failure of an output that does not decode completely; pure."""
    diagnosis = result.diagnosis
    if diagnosis.disk_full:
        raise InsufficientSpace("The engine's disk is full.", log_tail=diagnosis.tail)
    if is_faulty(diagnosis) or diagnosis.doubts or result.code != 0:
        _attribute_fault(request, diagnosis)


def _attribute_fault(request: Request, diagnosis: Diagnosis) -> None:
    """Raise for an output that does not decode: a copied stream is the source's fault."""
    doubts = [doubt.words for doubt in diagnosis.doubts.values()]
    found = [*diagnosis.damage, *doubts, "some frames cannot be decoded"][0]
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
