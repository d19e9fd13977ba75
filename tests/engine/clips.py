"""Make small synthetic clips, each once a run.

The workers of a run share the folder: one makes a clip under its lock and under another name, so that
none reads a part of it.
"""

import subprocess
import tempfile
from pathlib import Path

from tests.engine.pgs import sup
from tests.engine.pipeline.odd import ODD, REFUSED
from tests.engine.pipeline.timed import TIMED
from tests.once import locked

from distconv_engine.ffmpeg.tools import Tools

VIDEO = "testsrc2=s=160x90:r=25:d={d}"
AUDIO = "sine=d={d}"
H264 = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p"
AAC = "-c:a aac"

CONTAINERS = {
    "mp4-moov-last": f"{H264} {AAC} -f mp4",
    "mp4-moov-first": f"{H264} {AAC} -movflags +faststart -f mp4",
    "mp4-fragmented": f"{H264} -g 10 {AAC} -movflags frag_keyframe+empty_moov -f mp4",
    "mkv": f"{H264} {AAC} -f matroska",
    "webm": "-c:v libvpx-vp9 -cpu-used 8 -deadline realtime -threads 1 -b:v 300k -c:a libopus -f webm",
    "ts": f"{H264} {AAC} -f mpegts",
    "mov": f"{H264} -c:a pcm_s16le -f mov",
    "avi": "-c:v mpeg4 -b:v 400k -c:a libmp3lame -f avi",
    "flv": f"{H264} {AAC} -f flv",
}
"""The arguments that make each container of the table."""


class Clips:
    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        self.folder = folder

    def make(self, name: str, *arguments: str) -> Path:
        """Run ffmpeg with `arguments` and the output's path, unless it was made already."""
        path = self.folder / name
        with locked(path):
            if not path.exists():
                with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                    made = Path(folder, name)
                    argv = [self.tools.ffmpeg, "-v", "error", "-y", "-nostdin", *arguments]
                    subprocess.run([*argv, str(made)], check=True, cwd=folder, capture_output=True)
                    made.rename(path)
        return path

    def _write(self, name: str, content: bytes) -> Path:
        """Write a file that ffmpeg reads, unless it was written already."""
        path = self.folder / name
        with locked(path):
            if not path.exists():
                path.write_bytes(content)
        return path

    def container(self, kind: str, seconds: float = 2.0) -> Path:
        """A clip with picture and sound in a container of the table."""
        return self.make(
            f"{kind}-{seconds:g}.{kind.partition('-')[0]}",
            *("-f", "lavfi", "-i", VIDEO.format(d=seconds)),
            *("-f", "lavfi", "-i", AUDIO.format(d=seconds)),
            *CONTAINERS[kind].split(),
        )

    def plain(self) -> Path:
        """A short whole mp4."""
        return self.container("mp4-moov-first", 1.0)

    def long(self, seconds: int = 60) -> Path:
        """A clip that takes some seconds to encode, for tests that interrupt it."""
        return self.make(
            f"long-{seconds}.mp4",
            *("-f", "lavfi", "-i", f"testsrc2=s=640x360:r=25:d={seconds}"),
            *H264.split(),
            *("-f", "mp4"),
        )

    def noise(self) -> Path:
        """A small clip whose lossless copy is large: noise, strongly compressed."""
        lavfi = "color=gray:s=640x360:r=25:d=10,noise=alls=40:allf=t"
        return self.make(
            "squeezed.mp4", "-f", "lavfi", "-i", lavfi, *H264.split(), "-crf", "38", "-f", "mp4"
        )

    def odd_names(self) -> list[str]:
        """All the names that `odd` knows."""
        return list(ODD)

    def odd(self, name: str) -> Path:
        """One of the odd but sound sources of `odd.ODD`."""
        file, recipe = {**ODD, **REFUSED}[name]
        words = [self._fill(word) for word in recipe.split()]
        return self.make(file, *words)

    def timed(self, name: str) -> Path:
        """One of the sources of `timed.TIMED`."""
        file, recipe, _ = TIMED[name]
        return self.make(file, *recipe.split())

    def _fill(self, word: str) -> str:
        helpers = {
            "{plain}": self.plain,
            "{long_gop}": self._long_gop,
            "{open_gop}": self._open_gop,
            "{srt}": self._srt,
            "{sup}": self._sup,
            "{chapters}": self._chapters,
            "{cover}": self._cover,
        }
        return str(helpers[word]()) if word in helpers else word

    def _long_gop(self) -> Path:
        lavfi = ("-f", "lavfi", "-i", VIDEO.format(d=2), "-f", "lavfi", "-i", AUDIO.format(d=2))
        return self.make("long-gop.mp4", *lavfi, *H264.split(), "-g", "250", *AAC.split())

    def _open_gop(self) -> Path:
        """A clip in which every later group begins with references to the one before."""
        lavfi = ("-f", "lavfi", "-i", "mandelbrot=s=160x90:r=25", "-t", "2", "-threads", "1")
        coding = "open-gop=1:keyint=20:bframes=2:ref=1"
        video = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-x264-params", coding)
        return self.make("open-gop.ts", *lavfi, *video)

    def note(self) -> Path:
        """A text to attach."""
        return self._write("note.txt", b"Recorded by hand.\n")

    def _srt(self) -> Path:
        lines = "1\n00:00:00,200 --> 00:00:00,900\nOne\n\n2\n00:00:01,000 --> 00:00:01,800\nTwo\n"
        return self._write("lines.srt", lines.encode())

    def _sup(self) -> Path:
        return self._write("box.sup", sup(0.2, 1.5))

    def _chapters(self) -> Path:
        parts = (
            f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={start + 1000}\ntitle=Part {start}\n"
            for start in (0, 1000)
        )
        return self._write("chapters.ffmeta", (";FFMETADATA1\n" + "".join(parts)).encode())

    def _cover(self) -> Path:
        lavfi = ("-f", "lavfi", "-i", "testsrc2=s=64x64:d=1", "-frames:v", "1")
        return self.make("cover.jpg", *lavfi, "-update", "1", "-pix_fmt", "yuvj420p")
