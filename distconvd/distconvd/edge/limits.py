"""Define the edge's limits on one client, each with the status that answers a breach.

They limit how much a client may send (head, body), how slow it may be (sending a head or a body,
reading its replies, being idle), and how many connections there may be. A slow client costs a task and
two small buffers until it times out; it never slows down another client.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """The bounds, with defaults for a public address."""

    head_bytes_max: int = 16_384
    """Request line and headers together; more is 431."""
    head_timeout_s: float = 10.0
    """From the first byte of a head (or from the connect) to its end; longer is 408."""
    body_bytes_max: int = 1_048_576
    """A body that is read whole, unless the route has its own limit; more is 413."""
    body_timeout_s: float = 30.0
    """Silence allowed in a body, and the initial credit of `body_rate_min_bytes_s`; longer is 408."""
    body_rate_min_bytes_s: int = 1_024
    """Waiting for a body may take `body_timeout_s` plus one second for each of this many bytes.

    Without it a byte every 29 seconds would occupy a connection for a year.
    """
    chunk_bytes_mean_min: int = 16
    """A chunked body in more than 1,000 chunks of fewer bytes than this on average is 400."""
    framing_bytes_spare: int = 65_536
    """A chunked body is 400 when its chunk headers (including extensions, which are ignored) exceed
    its content by more than this many bytes."""
    idle_timeout_s: float = 60.0
    """Silence allowed between two requests of one connection; then it is closed."""
    send_timeout_s: float = 30.0
    """Time for the client to take each 64 KiB of a reply; then the connection is dropped."""
    connections_max: int = 4_096
    """Open connections; one more is answered with 503 and Retry-After, and closed."""
    requests_per_connection_max: int = 100_000
    """Then the connection is closed, so that load balancers can move clients."""
    unread_bytes_max: int = 65_536
    """An unread body up to this size is discarded; for a longer one the connection is closed."""
    linger_s: float = 2.0
    """After the last reply: how long to read from a client that still sends, so that it gets the
    reply and not a reset."""
    linger_bytes_max: int = 16_777_216
    """And how many bytes."""
