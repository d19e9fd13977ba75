"""The bounds of one websocket; each is stated in docs/protocol.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Times in seconds, sizes as the name says."""

    message_bytes_max: int = 1_048_576
    """A longer message from an engine is closed with 1009."""
    queue_messages_max: int = 64
    """Messages that wait to be sent; one more from the daemon's side closes with 1013."""
    send_timeout_s: float = 10.0
    """How long one message may take to be sent; then the connection is dropped."""
    ping_s: float = 20.0
    """After so long a silence the engine is pinged."""
    pong_timeout_s: float = 20.0
    """How long the pong may take; then the connection is closed with 1011."""
    recheck_s: float = 5.0
    """After so long the engine's key is looked at again, before more is said to it; one that would
    not be let in any more is closed with 1008."""
    handshake_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    """How long the engine may take to answer a close."""
