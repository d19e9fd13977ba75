"""Exchange clip and result with an engine: by HTTP from this machine, or in a shared folder.

Both leave nothing behind. The HTTP server runs only during the round trip, under an unguessable path,
with one file to fetch and one target to upload to. It needs neither a folder that both machines see
nor a media store, but the engine must be able to reach this machine.
"""

import base64
import hashlib
import secrets
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Protocol

from distconv_client.errors import BadInput

RESULT_BYTES_MAX = 10_000_000
REQUEST_S_MAX = 30.0


class Transport(Protocol):
    """How the clip gets to the engine, and the result back."""

    @property
    def source_url(self) -> str:
        """The URL from which the engine fetches the clip."""
        ...

    @property
    def output_url(self) -> str:
        """The URL to which it uploads the result."""
        ...

    def result(self) -> bytes | None:
        """Return the result; None if there is none."""
        ...


class _SharedFolder(NamedTuple):
    source: Path
    output: Path

    @property
    def source_url(self) -> str:
        return self.source.as_uri()

    @property
    def output_url(self) -> str:
        return self.output.as_uri()

    def result(self) -> bytes | None:
        try:
            return self.output.read_bytes()
        except FileNotFoundError:
            return None


@contextmanager
def by_folder(folder: Path, clip: bytes) -> Generator[Transport]:
    """Put the clip into a folder, and remove everything afterwards; raises `BadInput`."""
    stem = folder.absolute() / f"distconv-doctor-{secrets.token_hex(6)}"
    place = _SharedFolder(stem.with_suffix(".y4m"), stem.with_suffix(".mp4"))
    try:
        place.source.write_bytes(clip)
        place.source.chmod(0o644)  # engines may run as another user
    except OSError as error:
        raise BadInput(
            f"Cannot write to {folder}: {error.strerror}.", hint="Use another --clip-dir."
        ) from error
    try:
        yield place
    finally:
        for path in place:
            path.unlink(missing_ok=True)


class _Exchange:
    """The clip that is served, and the result that was uploaded."""

    def __init__(self, base: str, clip: bytes) -> None:
        secret = secrets.token_urlsafe(16)
        self.clip = clip
        self.source_path, self.output_path = f"/{secret}/clip.y4m", f"/{secret}/result.mp4"
        self.source_url, self.output_url = base + self.source_path, base + self.output_path
        self.was_fetched = False
        self._result: bytes | None = None

    def accept(self, data: bytes, digest: str | None) -> bool:
        """Store the result; return False if it does not match its digest."""
        own = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if digest is not None and digest != f"sha-256=:{own}:":
            return False
        self._result = data
        return True

    def result(self) -> bytes | None:
        return self._result


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    transport: _Exchange


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers the engine, and no client that does not know the path."""

    timeout = REQUEST_S_MAX

    @property
    def _transport(self) -> _Exchange:
        assert isinstance(self.server, _Server)
        return self.server.transport

    def do_GET(self) -> None:
        """Send the clip."""
        self._send_clip(with_body=True)

    def do_HEAD(self) -> None:
        """Send the clip's headers."""
        self._send_clip(with_body=False)

    def do_PUT(self) -> None:
        """Receive the result."""
        size = self.headers.get("Content-Length", "")
        if self.path != self._transport.output_path:
            return self._answer(404)
        if not size.isdigit() or int(size) > RESULT_BYTES_MAX:
            return self._answer(413)
        data = self.rfile.read(int(size))
        is_good = len(data) == int(size) and self._transport.accept(
            data, self.headers.get("Repr-Digest")
        )
        return self._answer(201 if is_good else 400)

    def _send_clip(self, *, with_body: bool) -> None:
        if self.path != self._transport.source_path:
            return self._answer(404)
        self._transport.was_fetched = True
        self._answer(200, self._transport.clip, with_body=with_body)
        return None

    def _answer(self, status: int, body: bytes = b"", *, with_body: bool = True) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def by_http(address: str, clip: bytes) -> Generator[_Exchange]:
    """Serve the clip at an address of this machine.

    Args:
        address: this machine's address on its connection to the daemon.
        clip: the clip.
    """
    server = (_Server6 if ":" in address else _Server)((address, 0), _Handler)
    host = f"[{address}]" if ":" in address else address
    transport = _Exchange(f"http://{host}:{server.server_address[1]}", clip)
    server.transport = transport
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield transport
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
