"""Hash the packets that a reader of a file saw, so that two readers can be compared.

ffprobe (`-show_data_hash`) and ffmpeg (`-f framehash`) print the same kind of hash of each packet's
bytes. Here they are combined per stream, in bounded memory. Time stamps are left out: other checks compare
them with the source, and a container's two forms may round them differently.
"""

import hashlib
import re
from dataclasses import dataclass, field

HASH = "murmur3"
"""128 bits, and fast: it has to detect faults, not forgery."""
_PACKET = re.compile(r"(\d+),(?: *-?\d+,){3} *(\d+), *([0-9a-z]+)")
_EXTRADATA = re.compile(r"#extradata (\d+), *\d+, *([0-9a-z]+)")


@dataclass(slots=True)
class StreamHash:
    """The packets of one stream, in their order."""

    count: int = 0
    total_bytes: int = 0
    extradata: str = ""
    """Hash of the decoder's parameters, which are outside of all packets."""
    chain: bytes = b""
    """Each packet's hash, hashed with all those before it."""

    def add(self, size: int, packet_hash: str) -> None:
        """Take the next packet."""
        self.count += 1
        self.total_bytes += size
        self.chain = hashlib.sha256(self.chain + packet_hash.encode()).digest()


@dataclass(slots=True)
class PacketHashes:
    """The hashes of all streams, by the reader's stream numbers."""

    streams: dict[int, StreamHash] = field(default_factory=dict[int, StreamHash])

    def of(self, index: int) -> StreamHash:
        """Return the hash of one stream, initially an empty one."""
        return self.streams.setdefault(index, StreamHash())

    def framehash_line(self, text: str) -> None:
        """Take a line of ffmpeg's `framehash`: stream, dts, pts, duration, size, hash."""
        if found := _PACKET.match(text):
            self.of(int(found[1])).add(int(found[2]), found[3])
        elif found := _EXTRADATA.match(text):
            self.of(int(found[1])).extradata = found[2]
