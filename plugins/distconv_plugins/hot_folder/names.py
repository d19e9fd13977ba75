"""Decide by name alone what in a hot folder is a video or a folder to enter."""

import os

from distconvd.model import CONTAINERS

SETTINGS_NAME = "distconv.toml"
DONE_NAME = "done"
"""The default folder of the results, next to the codecs' folders."""
REPORT_SUFFIX = ".report.json"
_NAME_BYTES_MAX = 255

VIDEO_SUFFIXES = frozenset(
    (
        *CONTAINERS,
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gxf", "h264", "h265", "hevc"),
        *("ivf", "m1v", "m2t", "m2ts", "m2v", "m4v", "mj2", "mpe", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "vob"),
        *("wmv", "wtv", "y4m"),
    )
)
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".distconv-part", "~")
_NOT_OURS = (".", "~", "#", "@", "$")
"""How the names of hidden files begin, and of what NAS boxes and Windows put next to people's own
files (`@eaDir`, `#recycle`, `$RECYCLE.BIN`, `~$x.mov`)."""


def is_video(name: str) -> bool:
    """Whether a file of this name is a finished video; others are left alone."""
    stem, _, suffix = name.rpartition(".")
    is_named = bool(stem) and suffix.lower() in VIDEO_SUFFIXES
    return is_named and not name.startswith(_NOT_OURS) and not stem.lower().endswith(_UNFINISHED)


def is_folder_served(name: str) -> bool:
    """Whether a folder of this name is entered."""
    return not name.startswith(_NOT_OURS)


def report_name(video: str, tag: str = "") -> str:
    """Return the name of a video's report; a video's name that is too long is cut.

    Args:
        video: its file name.
        tag: makes the name unique when another video's report has the plain one.
    """
    ending = os.fsencode(f".{tag}{REPORT_SUFFIX}" if tag else REPORT_SUFFIX)
    raw = os.fsencode(video)
    name_bytes_max = _NAME_BYTES_MAX - len(ending)
    if len(raw) > name_bytes_max:
        # Never cut within a UTF-8 character. One has at most four bytes; a name that is not UTF-8
        # may have any number of continuation bytes in a row, so go back no further.
        least = name_bytes_max - 3
        while name_bytes_max > least and raw[name_bytes_max] & 0xC0 == 0x80:
            name_bytes_max -= 1
    return os.fsdecode(raw[:name_bytes_max] + ending)
