"""Verify which codecs this engine can encode and decode, with which of its ffmpegs.

Each encoder has to encode a few frames first, and the result has to decode again. What ffmpeg lists
proves nothing: a hardware encoder is listed on machines without the hardware, and so is a decoder
(ffmpeg's own for AV1 only drives hardware).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from distconv_engine.encode.encoders import ENCODERS, Encoder, pixel_filter
from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.containers import TRIAL_CONTAINER
from distconv_engine.ffmpeg.inputs import file_url, read_arguments
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import LOG_LEVEL
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.ffmpeg import Ffmpeg
from distconvd.model import CODECS

_FRAMES = 4
_TEST_S_MAX = 20.0
_TRIAL_BITRATE = "1M"


@dataclass(frozen=True, slots=True)
class VerifiedEncoder:
    """An encoder that works, and the ffmpeg that it belongs to."""

    encoder: Encoder
    tools: Tools


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What works on this engine."""

    by_codec: dict[str, tuple[VerifiedEncoder, ...]]
    """The verified encoders of each codec, best first."""
    readers: dict[str, tuple[str, ...]]
    """The ffmpegs that decode a codec, the chosen one first."""

    @property
    def codecs(self) -> list[str]:
        """The codecs that a heartbeat lists."""
        return [codec for codec in CODECS if self.by_codec.get(codec)]

    def encoders(self, codec: str) -> tuple[VerifiedEncoder, ...]:
        """Return the verified encoders of `codec`."""
        return self.by_codec.get(codec, ())

    def reader(self, codec: str) -> str | None:
        """Return the ffmpeg to decode `codec` with, if there is one."""
        return next(iter(self.readers.get(codec, ())), None)


def candidates(tools: Tools, *, hardware: bool) -> list[VerifiedEncoder]:
    """Return the encoders that are worth a try, the preferred ones first: hardware before software,
    and in each the chosen ffmpeg before its spares."""
    rows = [
        VerifiedEncoder(row, tools) for row in ENCODERS.values() if hardware or not row.hardware
    ]
    for spare in tools.spares:
        other = tools.with_spare(spare)
        rows += [
            VerifiedEncoder(row, other)
            for row in ENCODERS.values()
            if row.hardware or not spare.hardware_only
            if hardware or not row.hardware
        ]
    return sorted(rows, key=lambda row: not row.encoder.hardware)


async def verify_encoders(ffmpeg: Ffmpeg, folder: Path, *, hardware: bool) -> Capabilities:
    """Try every candidate in `folder`, as many at the same time as there are cores."""
    rows = candidates(ffmpeg.tools, hardware=hardware)
    verified: dict[int, VerifiedEncoder] = {}
    readers: dict[str, set[str]] = {}
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)

    async def try_one(place: int, row: VerifiedEncoder) -> None:
        encoder, own = row.encoder, ffmpeg.using(row.tools)
        clip = folder / f"trial-{place}{TRIAL_CONTAINER.suffix}"
        async with limiter:
            if await encodes(own, encoder, clip):
                deep = encoder.ten_bit and await _encodes_ten_bit(own, encoder)
                verified[place] = replace(row, encoder=replace(encoder, ten_bit=deep))
                readers.setdefault(encoder.codec, set()).update(await _readers_of(ffmpeg, clip))
        await trio.Path(clip).unlink(missing_ok=True)

    async with trio.open_nursery() as nursery:
        for place, row in enumerate(rows):
            nursery.start_soon(try_one, place, row)
    in_order = [verified[place] for place in sorted(verified)]
    by_codec = {
        codec: tuple(row for row in in_order if row.encoder.codec == codec) for codec in CODECS
    }
    return Capabilities(by_codec, _in_order(ffmpeg.tools, readers))


def _in_order(tools: Tools, readers: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    """Return the ffmpegs that decode each codec, the chosen one first."""
    return {
        codec: tuple(program for program in tools.ffmpegs if program in found)
        for codec, found in readers.items()
        if found
    }


async def encodes(ffmpeg: Ffmpeg, encoder: Encoder, clip: Path) -> bool:
    """Whether `encoder` makes all frames of a short clip, which is left at `clip`."""
    argv = encode_arguments(ffmpeg.tools, encoder, _trial_size(encoder), _FRAMES)
    result = await _run_briefly(ffmpeg, [*argv, "-f", TRIAL_CONTAINER.muxer, file_url(clip)])
    written = result.diagnosis.written.get(0) if result else None
    return written is not None and written.frames == _FRAMES


def _trial_size(encoder: Encoder) -> str:
    """Return the size of a trial's picture: drivers refuse small ones, and programs encode those in half
    the time, which every start of an engine waits for."""
    return "320x192" if encoder.hardware else "160x96"


async def _encodes_ten_bit(ffmpeg: Ffmpeg, encoder: Encoder) -> bool:
    """Whether this build of `encoder` makes 10 bits; if not, ffmpeg logs so, uses 8 and
    continues."""
    argv = encode_arguments(ffmpeg.tools, encoder, _trial_size(encoder), _FRAMES, ten_bit=True)
    result = await _run_briefly(ffmpeg, [*argv, "-f", "null", "-"])
    return result is not None and "ncompatible pixel format" not in result.diagnosis.tail


async def _readers_of(ffmpeg: Ffmpeg, clip: Path) -> list[str]:
    """Return the ffmpegs that decode all frames of `clip`."""
    return [program for program in ffmpeg.tools.ffmpegs if await _decodes(ffmpeg, program, clip)]


async def _decodes(ffmpeg: Ffmpeg, program: str, clip: Path) -> bool:
    argv = [program, "-hide_banner", "-nostdin", "-loglevel", LOG_LEVEL]
    argv += [*read_arguments(file_url(clip)), "-f", "null", "-"]
    result = await _run_briefly(ffmpeg, argv)
    read = result.diagnosis.read.get(0) if result else None
    return read is not None and read.frames == _FRAMES and not read.errors


async def _run_briefly(ffmpeg: Ffmpeg, argv: list[str]) -> RunResult | None:
    """Run to the end; None on failure or after a time limit, for drivers that hang."""
    with trio.move_on_after(_TEST_S_MAX):
        try:
            result = await ffmpeg.run(argv)
        except EngineFault:
            return None
        return result if result.code == 0 else None
    return None


def encode_arguments(
    tools: Tools, encoder: Encoder, size: str, frames: int, *, ten_bit: bool = False
) -> list[str]:
    """Return the start of a command that encodes a synthetic clip with the encoder's defaults."""
    clip = f"testsrc2=size={size}:rate=25"
    argv = [tools.ffmpeg, "-hide_banner", "-nostdin", "-y", "-loglevel", LOG_LEVEL]
    argv += [*encoder.input_options, "-f", "lavfi", "-i", clip, "-frames:v", str(frames)]
    argv += ["-vf", pixel_filter(encoder, ten_bit=ten_bit), "-c:v", encoder.name]
    if ten_bit and not encoder.hardware:
        argv += ["-pix_fmt", "yuv420p10le"]
    argv += [encoder.quality_option, str(encoder.quality_default), *encoder.quality_extra]
    if encoder.bits_a_pixel_max is not None:
        argv += ["-b:v", _TRIAL_BITRATE]
    return [*argv, encoder.preset_option, encoder.preset_default, *encoder.extra]
