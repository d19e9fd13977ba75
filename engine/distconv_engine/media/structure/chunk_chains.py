"""Check containers that are chains of units, with stated lengths or a common one.

Their demuxers silently skip a bad unit to the next good one: a block of zeros in the middle of a
WMV loses frames, and nothing reports it. So each unit is checked.

- MXF: keys and lengths (SMPTE 336M) from the first byte to the footer.
- ASF, WMV: the file's size and its number of packets, and each packet's first byte.
- DV: frames of one size. AU, AIFF, CAF: the size in the header.
"""

from typing import BinaryIO

from distconv_engine.failures import InputFault, cut_short
from distconv_engine.media.structure.concatenated import check_end
from distconv_engine.media.structure.facts import Structure, ends_at

UNITS_MAX = 10_000_000
"""More units are not checked: a week of video, or a file made to keep the engine busy."""
MXF_MAGIC = b"\x06\x0e\x2b\x34"
_MXF_FOOTER = bytes.fromhex("060e2b34020501010d01020101")
_FOOTER_KINDS = (0x04, 0x11)
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_BYTES = 50
_ASF_HEADER_MAX = 10_000_000
_ASF_CHECKED, _ASF_MASK = 0x82, 0x8F
"""Of a packet that begins with two bytes of error correction data, as all known writers make it."""
_CAF_CHUNKS_MAX = 1000
DV_MAGIC = b"\x1f\x07\x00"
_DV_BYTES = {False: 120_000, True: 144_000}
"""Size of a frame with 525 and 625 lines. Formats with more lines have a multiple of it."""


def check_mxf(file: BinaryIO, size: int) -> Structure:
    """Follow the chain of keys up to the footer, after which anything is allowed."""
    start = 0
    for _ in range(UNITS_MAX):
        if start >= size:
            break
        file.seek(start)
        head = file.read(25)
        if not head.startswith(MXF_MAGIC):
            raise InputFault(f"The source is damaged: an MXF key should begin at byte {start}.")
        if len(head) < 17:
            raise cut_short("an MXF key", start + 17, size)
        wide = head[16] & 0x7F if head[16] & 0x80 else 0
        length = int.from_bytes(head[17 : 17 + wide], "big") if wide else head[16]
        if head.startswith(_MXF_FOOTER) and head[13] in _FOOTER_KINDS:
            break
        if start + 17 + wide + length > size:
            raise cut_short("an MXF packet", start + 17 + wide + length, size)
        start += 17 + wide + length
    return Structure()


def check_asf(file: BinaryIO, size: int) -> Structure:
    """Compare what the header states with the file, and check each packet."""
    file.seek(0)
    head = file.read(30)
    length = int.from_bytes(head[16:24], "little")
    if length + _ASF_DATA_BYTES > size:
        raise cut_short("its ASF header", length + _ASF_DATA_BYTES, size)
    header = file.read(min(length, _ASF_HEADER_MAX) - 30)
    data = file.read(_ASF_DATA_BYTES)
    at = header.find(_ASF_FILE)
    stated_header = header[at : at + 104] if at >= 0 else b""
    if len(stated_header) < 104 or stated_header[88] & 1 or not data.startswith(_ASF_DATA):
        # a live recording, whose header was written before its size was known
        return Structure(states_length=False)
    stated = int.from_bytes(stated_header[40:48], "little")
    if stated > size:
        raise cut_short("the ASF file, according to its header,", stated, size)
    check_end(file, stated)
    packets, packet_bytes = (
        int.from_bytes(stated_header[56:64], "little"),
        int.from_bytes(stated_header[92:96], "little"),
    )
    first = length + _ASF_DATA_BYTES
    if first + packets * packet_bytes > size:
        raise cut_short("its last ASF packet", first + packets * packet_bytes, size)
    _check_packets(file, first, packets, packet_bytes)
    return ends_at(stated, size)


def _check_packets(file: BinaryIO, first: int, count: int, packet_bytes: int) -> None:
    for number in range(min(count, UNITS_MAX)):
        file.seek(first + number * packet_bytes)
        begins = file.read(1)
        if not begins or begins[0] & _ASF_MASK != _ASF_CHECKED:
            if number == 0:
                return  # without error correction data the start of a packet cannot be recognized
            place = first + number * packet_bytes
            raise InputFault(f"The source is damaged: an ASF packet should begin at byte {place}.")


def check_dv(file: BinaryIO, size: int) -> Structure:
    """Check that the last frame is whole."""
    file.seek(3)
    frame = _DV_BYTES[bool(file.read(1)[0] & 0x80)]
    if size % frame:
        raise cut_short("its last DV frame", size - size % frame + frame, size)
    return Structure()


def check_au(file: BinaryIO, size: int) -> Structure:
    """Check the size in the header, if it states one."""
    file.seek(4)
    start, length = (int.from_bytes(file.read(4), "big") for _ in range(2))
    if length == 0xFFFFFFFF:
        return Structure(states_length=False)
    if start + length > size:
        raise cut_short("its audio", start + length, size)
    check_end(file, start + length)
    return ends_at(start + length, size)


def check_aiff(file: BinaryIO, size: int) -> Structure:
    """Check the size of the FORM chunk."""
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "big")
    if end > size:
        raise cut_short("its FORM chunk", end, size)
    check_end(file, end + end % 2)
    return ends_at(end + end % 2, size)


def check_caf(file: BinaryIO, size: int) -> Structure:
    """Compare the size of the audio with the file; -1 stands for: up to its end."""
    start = 8
    for _ in range(_CAF_CHUNKS_MAX):
        file.seek(start)
        head = file.read(12)
        if len(head) < 12:
            break
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            if length < 0:
                return Structure(states_length=False, unset_length=True)
            if start + 12 + length > size:
                raise cut_short("its audio", start + 12 + length, size)
            return Structure()
        start += 12 + max(0, length)
    return Structure(states_length=False)


def quoted(kind: bytes) -> str:
    """Return the four-byte name of a unit, quoted for a message."""
    return repr(kind.decode("latin-1"))


def is_printable(kind: bytes) -> bool:
    """Whether four bytes may name a unit."""
    return all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind)
