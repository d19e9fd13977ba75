"""Which names in a hot folder count: videos, folders, settings. Names only; nothing is opened."""

import os

SETTINGS_NAME = "distconv.toml"
DONE_NAME = "done"
"""Where results go that no `distconv.toml` sends elsewhere, beside the folders of the codecs."""
REPORT_SUFFIX = ".report.json"
_NAME_BYTES_MAX = 255

VIDEO_SUFFIXES = frozenset(
    (
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gxf", "h264", "h265", "hevc"),
        *("ivf", "m1v", "m2t", "m2ts", "m2v", "m4v", "mj2", "mkv", "mov", "mp4", "mpe", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "ts", "vob"),
        *("webm", "wmv", "wtv", "y4m"),
    )
)
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".distconv-part", "~")
_NOT_OURS = (".", "~", "#", "@", "$")
"""How hidden files begin, and what NAS boxes and Windows put beside people's own (`@eaDir`,
`#recycle`, `$RECYCLE.BIN`, `~$x.mov`)."""


def is_video(name: str) -> bool:
    """Whether a file of this name is meant to be converted; others are left alone."""
    stem, _, suffix = name.rpartition(".")
    is_named = bool(stem) and suffix.lower() in VIDEO_SUFFIXES
    return is_named and not name.startswith(_NOT_OURS) and not stem.lower().endswith(_UNFINISHED)


def is_folder_served(name: str) -> bool:
    """Whether a folder of this name is looked into."""
    return not name.startswith(_NOT_OURS)


def report_name(video: str, tag: str = "") -> str:
    """Return the name of a video's report; the video's name is cut where it is too long.

    Args:
        video: its file name.
        tag: set where another video's report has the plain name.
    """
    ending = os.fsencode(f".{tag}{REPORT_SUFFIX}" if tag else REPORT_SUFFIX)
    raw = os.fsencode(video)
    name_bytes_max = _NAME_BYTES_MAX - len(ending)
    if len(raw) > name_bytes_max:
        least = name_bytes_max - 3  # a character has four bytes at most; other names are any bytes
        while (
            name_bytes_max > least and raw[name_bytes_max] & 0xC0 == 0x80
        ):  # never within a character
            name_bytes_max -= 1
    return os.fsdecode(raw[:name_bytes_max] + ending)
