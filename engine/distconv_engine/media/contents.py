"""Read what ffprobe prints of a file's description and of all its packets in one run.

Most files have no fault, and starting ffprobe and opening the file again costs more than reading a small
one. This is for such files: if anything is missing or not as expected, there are no contents. The
caller then runs `probe` and `packets` one by one; they know whose fault it is, and say so.

ffprobe prints JSON with one packet a line, packets first; a packet with side data takes several lines.
Packets are summed as they arrive, in bounded memory.
"""

from typing import NamedTuple

import msgspec

from distconv_engine.failures import InputFault
from distconv_engine.media.packet_hashes import HASH, PacketHashes
from distconv_engine.media.packets import PACKET_ENTRIES, PacketScan, PacketTable
from distconv_engine.media.probe import Probe, parse_probe

_PACKET_CHARACTERS_MAX = 65_536
_DESCRIPTION_CHARACTERS_MAX = 16_000_000
_PACKETS_BEGIN, _PACKETS_END = '"packets": [', "],"


class Contents(NamedTuple):
    """What a file without fault contains."""

    probe: Probe
    scan: PacketScan
    hashes: PacketHashes
    """Empty unless they were asked for."""


class _Packet(msgspec.Struct):
    stream_index: int
    size: str
    flags: str
    pts: int | None = None
    pts_time: str = ""
    dts_time: str = ""
    duration_time: str = ""
    pos: str = ""
    data_hash: str = ""


_decode_packet = msgspec.json.Decoder(_Packet).decode


class _StreamHash(msgspec.Struct):
    index: int
    extradata_hash: str = ""


class _StreamHashes(msgspec.Struct):
    streams: list[_StreamHash] = []


class ContentsReader:
    """Reads ffprobe's JSON of packets, streams, chapters and format, line by line."""

    def __init__(self) -> None:
        self.hashes = PacketHashes()
        self.table = PacketTable(hashes=self.hashes)
        self._is_among_packets = False
        self._packet = ""
        self._description: list[str] = []
        self.description_size = 0
        self._is_strange = False

    def line(self, line: str) -> None:
        """Take the next line."""
        text = line.strip()
        if self._is_among_packets and (self._packet or text != _PACKETS_END):
            self._take_packet(text)
        elif self._is_among_packets:
            self._is_among_packets = False
        elif text == _PACKETS_BEGIN:
            self._is_among_packets = True
        else:
            self._describe(text)

    def maybe_contents(self) -> Contents | None:
        """Return what was read; None if a part is missing or is not what it should be."""
        raw = "".join(self._description).encode()
        try:
            found, streams = parse_probe(raw), msgspec.json.decode(raw, type=_StreamHashes).streams
        except (InputFault, msgspec.DecodeError, msgspec.ValidationError):
            return None
        if self._is_strange or self._packet or not found.format or not self.table.scan.streams:
            return None
        self.table.close()
        for stream in streams:
            if stream.extradata_hash:
                extradata = stream.extradata_hash.removeprefix(f"{HASH}:")
                self.hashes.of(stream.index).extradata = extradata
        return Contents(found, self.table.scan, self.hashes)

    def _take_packet(self, text: str) -> None:
        """Take a line of a packet: the whole packet, or a part of one with side data."""
        if len(self._packet) + len(text) > _PACKET_CHARACTERS_MAX:
            self._is_strange, self._packet = True, ""
            return
        self._packet += text
        if not text.endswith(("}", "},")):
            return
        try:
            packet = _decode_packet(self._packet.removesuffix(","))
        except msgspec.ValidationError:
            self._is_strange = True
        except msgspec.DecodeError:
            return  # the end of its side data, not of the packet
        else:
            self._add(packet)
        self._packet = ""

    def _add(self, packet: _Packet) -> None:
        ticks = "" if packet.pts is None else str(packet.pts)
        times = (ticks, packet.pts_time, packet.dts_time, packet.duration_time)
        index, place = str(packet.stream_index), (packet.size, packet.pos)
        self.table.packet([index, *times, *place, packet.flags, packet.data_hash])

    def _describe(self, text: str) -> None:
        if self.description_size + len(text) > _DESCRIPTION_CHARACTERS_MAX:
            self._is_strange = True
        else:
            self._description.append(text)
            self.description_size += len(text)


def contents_options(*, with_hashes: bool) -> list[str]:
    """Return ffprobe's options for what a `ContentsReader` reads."""
    options = ["-hide_banner", "-loglevel", "repeat+level+warning"]
    options += ["-show_format", "-show_streams", "-show_chapters", "-of", "json=compact=1"]
    options += ["-show_data_hash", HASH] if with_hashes else []
    return [*options, "-show_entries", PACKET_ENTRIES + (",data_hash" if with_hashes else "")]
