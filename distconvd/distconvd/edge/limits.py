"""How much of everything one client may ask of the edge; each bound has its status.

What a client may send (head, body), how slow it may be (head, body, reading its replies, doing
nothing), and how many of it there may be. A slow client costs a task and two small buffers until
its time is up; it never costs another client anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """The bounds, with defaults for a public address."""

    head_bytes_max: int = 16_384
    """Request line and headers together; more is 431."""
    head_timeout_s: float = 10.0
    """From its first byte (or from the connect) to the end of a head; later is 408."""
    body_bytes_max: int = 1_048_576
    """A body that is read whole, where the route names no limit of its own; more is 413."""
    body_timeout_s: float = 30.0
    """Silence allowed in a body, and the credit in `body_rate_min_bytes_s`; later is 408."""
    body_rate_min_bytes_s: int = 1_024
    """Waiting for a body may take `body_timeout_s` and a second for each of this many bytes.

    Without it a byte every 29 seconds would hold a connection for a year.
    """
    chunk_bytes_mean_min: int = 16
    """A chunked body in more than 1,000 chunks of fewer bytes than this on average is 400."""
    framing_bytes_spare: int = 65_536
    """A chunked body whose chunk headers (with their extensions, which nobody reads) weigh more than
    its content and so many bytes is 400."""
    idle_timeout_s: float = 60.0
    """Silence allowed between two requests of one connection; then it is closed."""
    send_timeout_s: float = 30.0
    """Time for the client to take each 64 KiB of a reply; then the connection is dropped."""
    connections_max: int = 4_096
    """Open connections; one more is told 503 with Retry-After and closed."""
    requests_per_connection_max: int = 100_000
    """After so many the connection is closed, so that balancers can move clients."""
    unread_bytes_max: int = 65_536
    """A body that nobody read is swallowed up to this size, else the connection is closed."""
    linger_s: float = 2.0
    """After the last reply: how long to listen to a client that still sends, so that it sees the
    reply and not a reset."""
    linger_bytes_max: int = 16_777_216
    """And how much of it."""
