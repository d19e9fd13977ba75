"""Define the limits of one websocket; docs/protocol.md states each of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Times are in seconds; the names of the others say their unit."""

    message_bytes_max: int = 1_048_576
    """A longer message from an engine closes the connection with 1009."""
    queue_messages_max: int = 64
    """Messages that wait to be sent; one more that the daemon pushes closes the connection with 1013."""
    send_timeout_s: float = 10.0
    """How long one message may take to be sent; then the connection is dropped."""
    ping_s: float = 20.0
    """After so long without data from the engine it is pinged."""
    pong_timeout_s: float = 20.0
    """How long the pong may take; then the connection is closed with 1011."""
    takeover_timeout_s: float = 5.0
    """How long a connected engine may take to answer before another connection takes over its id."""
    recheck_s: float = 5.0
    """Every so long the engine's key is checked again before anything is sent; if the key is no longer
    accepted, the connection is closed with 1008."""
    handshake_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    """How long the engine may take to answer a close."""
