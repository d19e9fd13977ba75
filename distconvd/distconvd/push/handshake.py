"""Check a websocket's opening handshake while an HTTP reply is still possible.

RFC 6455 section 4.2.1 says what it must contain. The library would check it as well, but after the
upgrade it could only close the connection.
"""

import base64
import binascii

from distconvd.edge.http import Request
from distconvd.errors import BadRequest
from distconvd.model.push import SUBPROTOCOL

VERSION = "13"
_KEY_BYTES = 16


def check_handshake(request: Request) -> None:
    """Raise `BadRequest` unless this request opens a websocket of our subprotocol."""
    headers = request.headers
    upgrades = "websocket" in _tokens(headers.get("upgrade", "").lower())
    if request.method != "GET" or not upgrades or not _connects(headers.get("connection", "")):
        raise BadRequest(
            "This path opens a websocket: send 'Connection: Upgrade' and 'Upgrade: websocket'.",
            headers={"Upgrade": "websocket"},
        )
    if headers.get("sec-websocket-version") != VERSION:
        raise BadRequest(
            f"'Sec-WebSocket-Version' must be {VERSION}.",
            headers={"Sec-WebSocket-Version": VERSION},
        )
    if not _is_key(headers.get("sec-websocket-key", "")):
        raise BadRequest("'Sec-WebSocket-Key' must be 16 bytes in base64.")
    if SUBPROTOCOL not in _tokens(headers.get("sec-websocket-protocol", "")):
        raise BadRequest(f"'Sec-WebSocket-Protocol' must include {SUBPROTOCOL}.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequest("A request that opens a websocket must not have a body.")


def _connects(header: str) -> bool:
    return "upgrade" in _tokens(header.lower())


def _tokens(header: str) -> list[str]:
    return [part.strip() for part in header.split(",")]


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
