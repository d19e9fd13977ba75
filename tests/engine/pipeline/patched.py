"""Make sources that look damaged and are not: clips with bytes cut, added or overwritten."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from tests.engine.clips import Clips

_TS_PACKET = 188
_VIDEO_PID, _AUDIO_PID = 0x100, 0x101


class Patched(NamedTuple):
    """A patched clip, and what the result has to say of it."""

    suffix: str
    make: Callable[[Clips], bytes]
    notes: list[str]
    frames: int | None
    """Of the result; None: it has no picture."""
    old_notes: list[str] | None = None
    """With an ffmpeg before 6, which counts and flags less; None: the same notes."""


def _unset_duration(clips: Clips, kind: bytes) -> bytes:
    """A fragmented recording in which each box of a kind says that the duration is unknown."""
    content = bytearray(clips.container("mp4-fragmented").read_bytes())
    for found in re.finditer(kind, content):
        content[found.start() + 20 : found.start() + 24] = b"\xff" * 4
    return bytes(content)


def _mp4(clips: Clips) -> bytes:
    return clips.container("mp4-moov-first").read_bytes()


def _ts(clips: Clips) -> bytes:
    return clips.container("ts").read_bytes()


def _key_ts(clips: Clips) -> bytes:
    """A TS with a key frame each half second."""
    return clips.make(
        "keys.ts",
        *("-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2"),
        *(
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "12",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
        ),
    ).read_bytes()


def _mpeg2_ts(clips: Clips) -> bytes:
    return clips.odd("mpeg2-ts").read_bytes()


def without_start(whole: bytes, percent: int) -> bytes:
    """Cut the beginning of a transport stream, between two packets."""
    return whole[len(whole) * percent // 100 // _TS_PACKET * _TS_PACKET :]


def without_pid(whole: bytes, pid: int) -> bytes:
    packets = (whole[at : at + _TS_PACKET] for at in range(0, len(whole), _TS_PACKET))
    return b"".join(p for p in packets if ((p[1] & 0x1F) << 8 | p[2]) != pid)


def _camera_trailer() -> bytes:
    return random.Random(7).randbytes(20_000) + b"8db42d694ccc418790edff439fe026bf"


def _unset_wav(clips: Clips) -> bytes:
    content = bytearray(clips.odd("wav").read_bytes())
    data = content.index(b"data")
    content[4:8] = content[data + 4 : data + 8] = b"\xff" * 4
    return bytes(content)


def _bad_chapter(clips: Clips) -> bytes:
    """Let the second chapter end before it begins."""
    content = bytearray(clips.odd("chapters").read_bytes())
    second = content.index(b"\xb6", content.index(b"\xb6", content.index(b"\x45\xb9")) + 1)
    at = content.index(b"\x92", second) + 1
    size = content[at] & 0x7F
    content[at + 1 : at + 1 + size] = (200_000_000).to_bytes(size, "big")
    return bytes(content)


def _unnamed_attachment(clips: Clips) -> bytes:
    """Overwrite the name of an attachment with a void element."""
    named = clips.make(
        "attached.mkv",
        *("-i", str(clips.container("mkv")), "-c", "copy", "-attach", str(clips.note())),
        *("-metadata:s:t:0", "mimetype=text/plain", "-metadata:s:t:0", "filename=note.txt"),
    )
    content = bytearray(named.read_bytes())
    at = content.index(b"\x46\x6e\x88note.txt")
    content[at : at + 3] = b"\xec\x89\0"
    return bytes(content)


def _wrong_lengths(clips: Clips) -> bytes:
    """State a length of 60,000 bytes in the header of each PES packet of the picture."""
    content = bytearray(_ts(clips))
    for at in range(0, len(content), _TS_PACKET):
        pid = (content[at + 1] & 0x1F) << 8 | content[at + 2]
        start = at + 4 + (1 + content[at + 4] if content[at + 3] & 0x20 else 0)
        if pid == _VIDEO_PID and content[at + 1] & 0x40:
            content[start + 4 : start + 6] = (60_000).to_bytes(2, "big")
    return bytes(content)


def _still_theora(clips: Clips) -> bytes:
    """Theora writes an empty packet for a picture like the one before; each tenth is a key frame."""
    lavfi = ("-f", "lavfi", "-i", "color=red:s=160x96:r=25:d=2")
    return clips.make("still.ogv", *lavfi, "-c:v", "libtheora", "-q:v", "7").read_bytes()


def _alac_without_durations(clips: Clips) -> bytes:
    """Overwrite the duration of Matroska's packets with a void element."""
    lavfi = ("-f", "lavfi", "-i", "sine=d=4:r=48000", "-af", "atrim=end_sample=143264")
    content = bytearray(clips.make("lossless.mka", *lavfi, "-c:a", "alac").read_bytes())
    at = content.index(b"\x23\xe3\x83\x84")
    content[at : at + 8] = b"\xec\x86" + bytes(6)
    return bytes(content)


def _empty_track(clips: Clips) -> bytes:
    """Set the four tables of the second track, which list its samples, to no entry."""
    content = bytearray(_mp4(clips))
    for name, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8)):
        place = content.index(name, content.index(name) + 1) + at
        content[place : place + 4] = bytes(4)
    return bytes(content)


PATCHED = {
    "camera-trailer": Patched("mp4", lambda c: _mp4(c) + _camera_trailer(), ["trailing-bytes"], 50),
    "line-feed": Patched("mp4", lambda c: _mp4(c) + b"\r\n", ["trailing-bytes"], 50),
    "flv-trailer": Patched(
        "flv", lambda c: c.container("flv").read_bytes() + b"\r\n", ["trailing-bytes"], 50
    ),
    "piped-wav": Patched("wav", _unset_wav, ["unset-length"], None),
    "bad-chapter": Patched("mkv", _bad_chapter, ["bad-chapter"], 50),
    "still-theora": Patched("ogv", _still_theora, ["repeated-pictures"], 5, []),
    "alac-without-durations": Patched("mka", _alac_without_durations, [], None),
    "unnamed-attachment": Patched("mkv", _unnamed_attachment, ["lost-attachment"], 50),
    "wrong-packet-lengths": Patched("ts", _wrong_lengths, ["packet-lengths"], 50, []),
    "ts-without-its-audio": Patched(
        "ts", lambda c: without_pid(_ts(c), _AUDIO_PID), ["empty-stream"], 50
    ),
    "ts-without-its-video": Patched(
        "ts", lambda c: without_pid(_ts(c), _VIDEO_PID), ["empty-stream"], None
    ),
    "unset-duration": Patched("mp4", lambda c: _unset_duration(c, b"mvhd"), ["unset-length"], 50),
    "unset-track-durations": Patched(
        "mp4", lambda c: _unset_duration(c, b"mdhd"), ["unset-length"], 50
    ),
    "empty-track": Patched("mp4", _empty_track, ["empty-stream"], 50),
    "h264-mid-group": Patched(
        "ts",
        lambda c: without_start(_key_ts(c), 13),
        ["begins-mid-group"],
        38,
        ["begins-mid-group", "unconfirmed-message"],
    ),
    "mpeg2-mid-group": Patched(
        "ts", lambda c: without_start(_mpeg2_ts(c), 5), ["begins-mid-group"], 38
    ),
}
