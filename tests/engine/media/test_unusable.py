"""What is no film, or encrypted, is named by its first bytes. No ffmpeg."""

import io
import struct

import pytest

from distconv_engine.failures import Unusable
from distconv_engine.media.structure.unusable import check_usable


def look(content: bytes) -> None:
    check_usable(io.BytesIO(content), len(content))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def mp4(entry: bytes, scheme: bytes | None = None) -> bytes:
    sinf = b"" if scheme is None else box(b"sinf", box(b"schm", bytes(4) + scheme + bytes(4)))
    stsd = box(b"stsd", bytes(4) + struct.pack(">I", 1) + box(entry, bytes(78) + sinf))
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(2000)) + box(b"moov", stsd)


def ts(*, scrambled: bool = False, stream_type: int = 0x1B) -> bytes:
    section = (
        b"\x02\xb0\x12\0\1\xc1\0\0\xe1\0\xf0\0" + bytes([stream_type]) + b"\xe1\0\xf0\0" + bytes(4)
    )
    table = b"G\x50\0\x10\0" + section
    packet = b"G\1\0" + (b"\x90" if scrambled else b"\x10")
    return table.ljust(188, b"\xff") + packet.ljust(188, b"a") * 50


@pytest.mark.parametrize(
    "content,words",
    [
        (b"<!DOCTYPE html><title>404</title>" * 60, "an HTML page, not a film: it begins with '<!DO"),
        (b"\n <html>gone</html>", "an HTML page"),
        (b"<?xml version='1.0'?><Error>NoSuchKey</Error>", "text"),
        (b'{"error": "no such file"}', "text, not a film"),
        ("\ufeffÜber den Film.\r\n".encode() * 100, "text, not a film"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", r"a still picture \(PNG\)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", r"a still picture \(JPEG\)"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", r"a still picture \(WebP\)"),
        (box(b"ftyp", b"heicmif1") + box(b"meta", b""), r"a still picture \(HEIC\)"),
        (box(b"ftyp", b"avifmif1") + box(b"meta", b""), r"a still picture \(AVIF\)"),
        (b"BM\x20\0\0\0" + bytes(26), r"a still picture \(BMP\)"),
        (mp4(b"encv", b"cenc"), r"it is encrypted \(cenc\)"),
        (mp4(b"enca", b"cbcs"), r"it is encrypted \(cbcs\)"),
        (mp4(b"drms"), r"it is encrypted \(drms\)"),
        (ts(scrambled=True), "DVB scrambling"),
        (ts(stream_type=0xDB), "SAMPLE-AES"),
        (
            b"\x1a\x45\xdf\xa3" + bytes(40) + b"\x6d\x80\x8c\x62\x40\x89\x50\x31\x81\0\x50\x35\x84\x47\xe1\x81\5",
            r"it is encrypted \(Matroska\)",
        ),
        (
            bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
            + bytes(20)
            + bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
            "Windows Media DRM",
        ),
    ],
)  # fmt: skip
def test_what_no_decoder_can_make_a_film_of_is_named(content: bytes, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        look(content)


@pytest.mark.parametrize(
    "content",
    [
        mp4(b"avc1"),
        ts(),
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"YUV4MPEG2 W2 H2 F25:1\nFRAME\n" + b"P" * 2000,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes(20) + b"acTL",
        b"text" * 10 + bytes(2000),
        b"",
    ],
)
def test_what_may_be_a_film_passes(content: bytes) -> None:
    look(content)
