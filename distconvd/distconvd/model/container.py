"""Define the containers: what a job may ask to be put into each, its suffix and media type.

What ffmpeg calls a container, and which streams of a *source* it can take, is up to
`distconv_engine.ffmpeg.containers`.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

ContainerName = Literal["mp4", "mkv", "webm", "mov", "ts"]


@dataclass(frozen=True, slots=True)
class ContainerRules:
    """What a job may ask to be put into one container."""

    name: ContainerName
    video: frozenset[str]
    audio: tuple[str, ...]
    """The audio codecs that it can be given; the first is used for audio that cannot be copied."""
    mime: str
    """Its registered media type."""
    faststart: bool = False
    """Whether it has an index that can be moved to the front."""

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return f".{self.name}"


CONTAINERS: dict[ContainerName, ContainerRules] = {
    row.name: row
    for row in (
        ContainerRules(
            "mp4",
            frozenset({"h264", "hevc", "vp9", "av1"}),
            ("aac", "opus"),
            "video/mp4",
            faststart=True,
        ),
        ContainerRules(
            "mkv",
            frozenset({"h264", "hevc", "vp8", "vp9", "av1"}),
            ("aac", "opus"),
            "video/matroska",
        ),
        ContainerRules("webm", frozenset({"vp8", "vp9", "av1"}), ("opus",), "video/webm"),
        ContainerRules(
            "mov", frozenset({"h264", "hevc"}), ("aac",), "video/quicktime", faststart=True
        ),
        ContainerRules("ts", frozenset({"h264", "hevc"}), ("aac", "opus"), "video/mp2t"),
    )
}
_BY_SUFFIX: dict[str, ContainerName] = {row.suffix: row.name for row in CONTAINERS.values()}


def container_of(name: str) -> ContainerName | None:
    """Return the container that the suffix of a file name or URL asks for, or None."""
    path = name.partition("?")[0] if "://" in name else name
    return None if path.endswith("/") else _BY_SUFFIX.get(PurePosixPath(path).suffix.lower())
