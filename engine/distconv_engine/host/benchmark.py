"""Measure how fast this engine encodes: one synthetic clip, timed for each codec.

Encoders run with their defaults. The result is kept in the work directory and reused as long as
ffmpeg, the processor, the graphics cards and the clip stay the same, so a restart costs nothing and
the engine is scheduled as before. `benchmark_schedule` decides when it is repeated anyway.
"""

import hashlib
import os
import platform
import time
from pathlib import Path

import msgspec
import trio

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.files import write_durably
from distconv_engine.host.capabilities import Capabilities, VerifiedEncoder, encode_arguments
from distconv_engine.media.ffmpeg import Ffmpeg

CLIP_SIZE = "416x240"
CLIP_FRAMES = 25
RUN_S_MAX = 60.0


class Benchmark(msgspec.Struct, frozen=True):
    """Seconds for the clip, by codec; lower is faster."""

    key: str
    """What the figures are valid for: see `benchmark_key`."""
    seconds: dict[str, float]
    measured_at: float = 0.0
    """Seconds since the epoch; 0: unknown, which counts as long ago."""

    @property
    def overall_s(self) -> float | None:
        """The one number of the original's API: that of H.264 if measured, else the mean."""
        if not self.seconds:
            return None
        return self.seconds.get("h264", sum(self.seconds.values()) / len(self.seconds))

    def frames_per_second(self) -> dict[str, float]:
        """Return the same figures as frames per second."""
        return {codec: round(CLIP_FRAMES / s, 1) for codec, s in self.seconds.items() if s > 0}


def benchmark_key(tools: Tools, capabilities: Capabilities) -> str:
    """Return a string that changes whenever the figures would."""
    rows = [capabilities.encoders(codec)[0] for codec in capabilities.codecs]
    encoders = [f"{row.encoder.name} {row.tools.version}" for row in rows]
    parts = [tools.version, _processor(), str(os.cpu_count()), CLIP_SIZE, str(CLIP_FRAMES)]
    parts += [*encoders, *_graphics()]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]


async def measure(
    ffmpeg: Ffmpeg, capabilities: Capabilities, cache: Path, *, force: bool = False
) -> Benchmark:
    """Return the figures from `cache` if still valid; else, or with `force`, time each codec.

    Raises:
        EngineFault: an encoder failed; the cache is unchanged.
    """
    key = benchmark_key(ffmpeg.tools, capabilities)
    known = None if force else _read(cache)
    if known is not None and known.key == key:
        return known
    seconds: dict[str, float] = {}
    for codec in capabilities.codecs:
        seconds[codec] = await _time_one(ffmpeg, capabilities.encoders(codec)[0])
    found = Benchmark(key, seconds, time.time())
    write_durably(cache, msgspec.json.encode(found))
    return found


async def _time_one(ffmpeg: Ffmpeg, row: VerifiedEncoder) -> float:
    encoder = row.encoder
    argv = [*encode_arguments(row.tools, encoder, CLIP_SIZE, CLIP_FRAMES), "-f", "null", "-"]
    start = trio.current_time()
    with trio.move_on_after(RUN_S_MAX):
        result = await ffmpeg.run(argv, batch_scheduling=True)
        if result.code != 0:
            raise EngineFault(
                f"The benchmark of {encoder.name} failed.", log_tail=result.diagnosis.tail
            )
    return round(trio.current_time() - start, 4)


def _read(cache: Path) -> Benchmark | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Benchmark)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None  # no cache, or not a valid one: measure


def _processor() -> str:
    """Name the processor as far as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    except OSError:
        pass  # not Linux
    return f"{platform.machine()} {platform.processor()}"


def _graphics() -> list[str]:
    """Name the graphics cards by vendor and device, as far as the system reports them."""
    found: list[str] = []
    for device in sorted(Path("/sys/class/drm").glob("card[0-9]*/device")):
        try:
            found.append((device / "vendor").read_text() + (device / "device").read_text())
        except (OSError, UnicodeDecodeError):
            continue  # a card without such names, such as a virtual one
    return found
