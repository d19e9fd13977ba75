"""Run, probe, scan and decode with one ffmpeg, under the controls of one attempt.

An `Ffmpeg` is made once for an attempt, so nothing that runs a program needs to know which program
it is, what limits apply to it, or whether the attempt is paused. What the programs print is parsed
by `probe`, `packets` and `packet_hashes`, which run nothing.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from distconv_engine.failures import Incapable
from distconv_engine.ffmpeg.child import LineSplitter
from distconv_engine.ffmpeg.demuxers import demuxer_of
from distconv_engine.ffmpeg.inputs import STDIN, read_arguments
from distconv_engine.ffmpeg.progress import EncodeProgress, ProgressParser
from distconv_engine.ffmpeg.run import Controls, RunOptions, RunResult, run
from distconv_engine.ffmpeg.stderr import LOG_LEVEL
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.contents import Contents, ContentsReader, contents_options
from distconv_engine.media.packet_hashes import HASH, PacketHashes
from distconv_engine.media.packets import PacketScan, PacketTable, packet_options
from distconv_engine.media.probe import (
    PROBE_OPTIONS,
    BoundedOutput,
    Probe,
    frame_options,
    probe_of,
    with_frame_data,
)
from distconv_engine.media.unpacked import FORMAT, copy_arguments, with_parameters
from distconv_engine.media.zero_runs import ZeroRuns
from distconv_engine.tasks import open_tasks
from distconvd.model import Capability

_ZLIB = (Capability.ZLIB_TRACKS,)

_NICENESS_MAX = 19
_STRICT = ("-err_detect", "crccheck+bitstream+buffer+explode")


@dataclass(frozen=True, slots=True)
class Decoder:
    """How frames are read back: which ffmpeg decodes, and with which options for video."""

    program: str
    video_options: tuple[str, ...] = ()

    def arguments(self, url: str, *options: str) -> list[str]:
        """Return the arguments that decode everything, with `options`, and discard the frames.

        The loop filter only smooths pictures and takes a third of the time, so it is skipped.
        """
        argv = [self.program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", LOG_LEVEL]
        argv += ["-skip_loop_filter", "all", *options, *read_arguments(url)]
        argv += ["-map", "0:V?", "-map", "0:a?", "-fps_mode", "passthrough"]
        return [*argv, *self.video_options, "-f", "null", "-"]


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """A pair of ffmpeg and ffprobe, and what their children may use.

    URLs come from `ffmpeg.inputs`; `stdin` is a descriptor for what `STDIN` stands for.
    """

    tools: Tools
    controls: Controls

    def using(self, tools: Tools) -> "Ffmpeg":
        """Return the same with other programs."""
        return replace(self, tools=tools)

    def without_pause(self, *, stall_s: float) -> "Ffmpeg":
        """Return the same for children that a pause of the attempt leaves running."""
        return replace(self, controls=Controls(self.controls.limits, stall_s))

    def in_background(self, more_niceness: int) -> "Ffmpeg":
        """Return the same with so much more niceness, up to the most there is, and no stall limit.

        Its children are still the attempt's: they are paused and stopped with the others.
        """
        niceness = min(_NICENESS_MAX, self.controls.limits.niceness + more_niceness)
        limits = replace(self.controls.limits, niceness=niceness)
        return replace(self, controls=replace(self.controls, limits=limits, stall_s=float("inf")))

    async def run(self, argv: Sequence[str], **options: Unpack[RunOptions]) -> RunResult:
        """Run a command to its end; see `ffmpeg.run.run`."""
        return await run(argv, self.controls, **options)

    async def probe(
        self, url: str, *, formats: str | None = None, stdin: int | None = None
    ) -> Probe:
        """Ask ffprobe what `url` says of itself; raises `InputFault` if it cannot be read.

        `formats` are the only demuxers allowed.
        """
        result, content = await self._ask_ffprobe(url, formats, stdin)
        if result.diagnosis.is_packed and result.code != 0:
            raise Incapable(f"This engine's ffprobe has no {result.diagnosis.lacks}.", needs=_ZLIB)
        found = probe_of(url, result, content)
        has_tracks = bool(found.main_video or found.of_kind("audio"))
        if result.diagnosis.is_packed and has_tracks and stdin is None:
            return await self._probe_unpacked(found, url, formats)
        return found

    async def add_frame_data(self, found: Probe, url: str) -> Probe:
        """Return `found` with the side data of its first picture, if it is HDR: the numbers of an HDR film
        may be in its pictures only."""
        video = found.main_video
        if video is None or not video.colour.is_hdr:
            return found
        output = BoundedOutput()
        argv = [self.tools.ffprobe, *frame_options(), *read_arguments(url)]
        await self.run(argv, on_stdout=output.feed)
        return with_frame_data(found, bytes(output.content))

    async def _ask_ffprobe(
        self, url: str, formats: str | None, stdin: int | None
    ) -> tuple[RunResult, bytearray]:
        output = BoundedOutput()
        argv = [self.tools.ffprobe, *PROBE_OPTIONS, *read_arguments(url, formats)]
        result = await self.run(argv, on_stdout=output.feed, stdin=stdin)
        return result, output.content

    async def _probe_unpacked(self, stored: Probe, url: str, formats: str | None) -> Probe:
        """Add to `stored` what ffprobe finds in a copy that an ffmpeg decompresses, if one can."""
        for ffmpeg in self.tools.ffmpegs:
            copied, result, content = await self._probe_copy(ffmpeg, url, formats)
            if not copied.diagnosis.is_packed and result.code == 0:
                return with_parameters(stored, probe_of(url, result, content))
        raise Incapable(
            "No ffmpeg of this engine can decompress the tracks of this Matroska file.", needs=_ZLIB
        )

    async def _probe_copy(
        self, ffmpeg: str, url: str, formats: str | None
    ) -> tuple[RunResult, RunResult, bytearray]:
        """Run an ffmpeg and ffprobe with a pipe between them; each end is closed with its user, so
        that the other one ends too."""
        read_end, write_end = os.pipe()

        async def copy() -> RunResult:
            try:
                argv = copy_arguments(ffmpeg, url, formats, write_end)
                return await self.run(argv, pass_fds=(write_end,))
            finally:
                os.close(write_end)

        async def read() -> tuple[RunResult, bytearray]:
            try:
                return await self._ask_ffprobe(STDIN, FORMAT, read_end)
            finally:
                os.close(read_end)

        async with open_tasks() as tasks:
            copied, found = tasks.start(copy), tasks.start(read)
        return (copied.value, *found.value)

    async def for_stored_packets(self, url: str, found: Probe) -> "Ffmpeg":
        """Return the same with an ffprobe that counts the packets of `url` as they are stored.

        An ffprobe with zlib silently skips a packet that it cannot decompress; the bundled one has
        none, and lists it.
        """
        other = self.tools.other_ffprobe
        if other is None or demuxer_of(found.format).name != FORMAT:
            return self
        without_zlib = self.using(replace(self.tools, ffprobe=other))
        result, _ = await without_zlib._ask_ffprobe(url, None, None)
        return without_zlib if result.diagnosis.is_packed else self

    async def maybe_contents(self, url: str, *, with_hashes: bool = False) -> Contents | None:
        """Probe and scan `url` in one run; None if it may have a fault, which those two would name.

        `with_hashes`: hash each packet, too.
        """
        reader = ContentsReader()
        lines = LineSplitter(reader.line)
        options = contents_options(with_hashes=with_hashes)
        argv = [self.tools.ffprobe, *options, *read_arguments(url)]
        # What it says at the beginning of a long file must not cost a whole further pass.
        result = await self.run(argv, on_stdout=lines.feed, stop_on_message=True)
        lines.close()
        is_silent = result.code == 0 and not result.diagnosis.tail
        return reader.maybe_contents() if is_silent else None

    async def scan(
        self,
        url: str,
        *,
        zero_runs: ZeroRuns | None = None,
        zero_streams: Sequence[int] = (),
        formats: str | None = None,
        stdin: int | None = None,
        hashes: PacketHashes | None = None,
        ignores_edits: bool = False,
    ) -> PacketScan:
        """Count the packets of `url`.

        Args:
            url: what to read.
            zero_runs: where the file has runs of zero bytes.
            zero_streams: the streams in which such a run is damage.
            formats: the only demuxers allowed.
            stdin: what `STDIN` stands for.
            hashes: takes the hashes of the packets, if they are needed.
            ignores_edits: count what the edit lists of an MP4 hide, too.
        """
        suspects = frozenset(zero_streams) if zero_runs else frozenset[int]()
        table = PacketTable(zero_runs, suspects, hashes)
        splitter = LineSplitter(table.line)
        options = packet_options(with_hashes=hashes is not None)
        options += ["-ignore_editlist", "1"] if ignores_edits else []
        argv = [self.tools.ffprobe, *options, *read_arguments(url, formats)]
        result = await self.run(argv, on_stdout=splitter.feed, stdin=stdin)
        splitter.close()
        table.close()
        table.scan.diagnosis, table.scan.exit_code = result.diagnosis, result.code
        return table.scan

    async def decode(
        self,
        url: str,
        decoder: Decoder,
        *,
        duration_s: float,
        on_progress: Callable[[float], None] | None = None,
        stdin: int | None = None,
        strict: bool = False,
    ) -> RunResult:
        """Decode all video and audio of `url`, and report the fraction done of `duration_s`.

        A `strict` decoder gives up on each frame in which it finds a fault, instead of mending it.
        """
        last = [EncodeProgress()]

        def take(progress: EncodeProgress) -> None:
            last[0] = progress
            if on_progress is not None:
                on_progress(progress.fraction(duration_s))

        return await self.run(
            [*decoder.arguments(url, *(_STRICT if strict else ())), "-progress", "pipe:1"],
            on_stdout=LineSplitter(ProgressParser(take).line).feed,
            sign_of_life=lambda: last[0],
            stdin=stdin,
        )

    async def decode_and_hash(self, decoder: Decoder, stdin: int) -> tuple[RunResult, PacketHashes]:
        """Decode the video and audio that arrive through the pipe `stdin`, and hash their packets."""
        hashes = PacketHashes()
        # Threads have a cost, and one for every second core keeps up with an encoder.
        threads = max(1, (os.cpu_count() or 1) // 2)
        argv = [*decoder.arguments(STDIN, "-threads", str(threads)), "-map", "0", "-c", "copy"]
        # Without this, ffmpeg would wake this process for each packet.
        argv += ["-flush_packets", "0", "-f", "framehash", "-hash", HASH, "pipe:1"]
        lines = LineSplitter(hashes.framehash_line)
        # No grace: at a low priority it would take long to end by itself on a busy machine.
        result = await self.run(argv, on_stdout=lines.feed, stdin=stdin, grace_s=0)
        lines.close()
        return result, hashes
