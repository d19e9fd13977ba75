"""Name what no decoder can make a film of: text, still pictures and encrypted files.

ffmpeg says of them that their data is invalid, or decodes noise. They begin with bytes that are known,
or state their encryption: MP4 in a track's sample entry (ISO 23001-7), Matroska in a content encoding,
ASF in its header, a transport stream in each packet or, for HLS, by the type of its streams.
"""

import re
from typing import BinaryIO

from distconv_engine.failures import Unusable

_HEAD_BYTES = 65_536
_TEXT_BYTES = 1024
_QUOTED_CHARS = 60
_UTF8_BYTES_MAX = 3
"""Of a character that the first bytes cut."""
_MOOV_BYTES_MAX = 64_000_000
_BOXES_MAX = 100_000
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"YUV4MPEG2")
"""Text that is refused in other words, or that begins a film."""
_HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_MARKUP = re.compile(rb"\s*<[?!a-zA-Z]")

_STILL_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"8BPS", "PSD"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\0\0\x01\0\x01\0", "icon"),
)
_PNG = b"\x89PNG\r\n\x1a\n"
_STILL_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}
_ENCRYPTED_ENTRY = re.compile(rb"stsd.{12}(encv|enca|enct|drms|drmi)", re.DOTALL)
_ENCRYPTED_TRACK = re.compile(
    rb"\x6d\x80.{1,12}?\x62\x40.{0,64}?\x50\x35.{1,8}?\x47\xe1", re.DOTALL
)
_ENCRYPTED_ASF = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
_ASF_MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_TS_PACKET = 188
_SAMPLE_AES = frozenset({0xDB, 0xCF, 0xC1, 0xC2})
"""Types of streams of which HLS encrypts the samples."""


def check_usable(file: BinaryIO, size: int) -> None:
    """Raise `Unusable` for what is no film, or not readable without a key."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    _check_text(head)
    if kind := _still_kind(head, size):
        raise Unusable(f"The source is a still picture ({kind}), not a film.")
    if scheme := _encryption(file, head, size):
        raise Unusable(
            f"The source cannot be decoded: it is encrypted ({scheme}). Decrypt it first."
        )


def _check_text(head: bytes) -> None:
    start = head[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf")
    if len(start) < _TEXT_BYTES and not start.strip():
        return
    if start.startswith(_PLAYLISTS) or b"<MPD" in start:
        return
    try:
        text = (
            start.decode("utf-8") if len(head) <= _TEXT_BYTES else start.decode("utf-8", "ignore")
        )
    except UnicodeDecodeError:
        return
    is_cut_only = len(start) - len(text.encode()) <= _UTF8_BYTES_MAX
    has_controls = any((c < " " and c not in "\t\n\r\f") or c == "\x7f" for c in text)
    if not is_cut_only or has_controls or not re.search(r"\s", text):
        return
    what = "text (XML)" if _MARKUP.match(start) else "text"
    if _HTML.match(start):
        what = "an HTML page"
    quoted = " ".join(text.split())[:_QUOTED_CHARS]
    raise Unusable(f"The source is {what}, not a film: it begins with {quoted!r}.")


def _still_kind(head: bytes, size: int) -> str | None:
    for magic, kind in _STILL_MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(_PNG):
        return None if b"acTL" in head else "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and int.from_bytes(head[2:6], "little") == size:
        return "BMP"
    return _STILL_BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" and b"moov" not in head else None


def _encryption(file: BinaryIO, head: bytes, size: int) -> str | None:
    """Return the name of the encryption that a file states, or None."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp"):
        return _mp4_scheme(_moov(file, size))
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "Matroska" if _ENCRYPTED_TRACK.search(head) else None
    if head.startswith(_ASF_MAGIC):
        return "Windows Media DRM" if any(guid in head for guid in _ENCRYPTED_ASF) else None
    is_ts = head[:1] == b"G" and head[_TS_PACKET : _TS_PACKET + 1] == b"G"
    return _ts_encryption(head) if is_ts else None


def _moov(file: BinaryIO, size: int) -> bytes:
    """Return the content of the first `moov` box, as far as it is there."""
    start = 0
    for _ in range(_BOXES_MAX):
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"moov":
            file.seek(start)
            return file.read(min(length or size, _MOOV_BYTES_MAX))
        if length < 8 or start + length >= size:
            break
        start += length
    return b""


def _mp4_scheme(moov: bytes) -> str | None:
    entry = _ENCRYPTED_ENTRY.search(moov)
    if entry is None:
        return None
    at = moov.find(b"schm", entry.end())
    scheme = moov[at + 8 : at + 12] if at >= 0 else entry[1]
    return scheme.decode("latin-1") if scheme.isalnum() else entry[1].decode()


def _ts_encryption(head: bytes) -> str | None:
    """Return how a transport stream is encrypted: most of its packets, or by its streams' types."""
    scrambled = clear = 0
    for at in range(0, len(head) - _TS_PACKET + 1, _TS_PACKET):
        packet = head[at : at + _TS_PACKET]
        if packet[0] != ord("G"):
            return None
        if packet[3] & 0x80:
            scrambled += 1
        elif _has_encrypted_stream(packet):
            return "HLS SAMPLE-AES"
        else:
            clear += 1
    return "DVB scrambling" if scrambled > clear else None


def _has_encrypted_stream(packet: bytes) -> bool:
    """Whether a packet has a program's map with a stream type of an encrypted stream."""
    starts_here, has_adaptation = packet[1] & 0x40, packet[3] & 0x20
    start = 4 + (1 + packet[4] if has_adaptation else 0)
    if not starts_here or start >= _TS_PACKET:
        return False
    section = packet[start + 1 + packet[start] :]
    if len(section) < 12 or section[0] != 0x02 or section[1] & 0xF0 != 0xB0:
        return False
    end = 3 + ((section[1] & 0x0F) << 8 | section[2]) - 4
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= min(end, len(section)):
        if section[at] in _SAMPLE_AES:
            return True
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return False
