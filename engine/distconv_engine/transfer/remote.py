"""Check that a file on an HTTP server stays the same file over many requests.

Every reply is compared with the first one: the strong ETag (or else the date) and the whole size. A
request for the rest carries `If-Range`, so a server that has another file now sends that one, and
is detected. After a break, the rest is requested from where it broke.
"""

import re
from dataclasses import dataclass

import httpx

from distconv_engine.failures import InputFault, TransientFault
from distconv_engine.key import with_key

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")


BAD_URL = (httpx.InvalidURL, httpx.TooManyRedirects, httpx.UnsupportedProtocol)
"""What no later try fixes. Catch it before `TransportError`, of which the last is one."""


class TryAgain(Exception):
    """The server said, or showed, that it may work later."""


@dataclass(slots=True)
class RemoteFile:
    """What is known of the file so far. `key` is for the daemon's own media store only."""

    url: str
    key: str | None = None
    written: int = 0
    """Where the next body is to begin."""
    total: int | None = None
    validator: str | None = None
    best: int = 0
    """The furthest byte that any try reached."""

    def headers(self, stop: int | None = None) -> httpx.Headers:
        """Return a request's headers: for the rest of the file, or for the bytes before `stop`."""
        headers = {"Accept-Encoding": "identity"}
        last = "" if stop is None else str(stop - 1)
        if stop is not None or (self.written and self.validator):
            headers["Range"] = f"bytes={self.written}-{last}"
            if self.validator:
                headers["If-Range"] = self.validator
        return with_key(headers, self.key)

    def advance(self, size: int) -> None:
        """Note that `size` more bytes have arrived."""
        self.written += size
        self.best = max(self.best, self.written)

    def given_up(self, tries: int, reason: str) -> InputFault | TransientFault:
        """Return the failure after too many tries."""
        if self.best:
            of = f" of {self.total}" if self.total is not None else ""
            return InputFault(
                f"The source breaks off: its server sent {self.best}{of} bytes in {tries} tries."
            )
        return TransientFault(f"The source's server is unavailable: {reason}")


def begin(state: RemoteFile, response: httpx.Response) -> None:
    """Check a reply against what is known; sets where the body continues."""
    status = response.status_code
    if status in _TRY_AGAIN:
        raise TryAgain(f"it answered {status}")
    if status not in (200, 206):
        if status == 416 and state.written:
            raise changed("it is shorter now")
        raise InputFault(f"The source's server answered {status} {response.reason_phrase}.")
    validator = validator_of(response)
    if state.validator is not None and validator != state.validator:
        raise changed("it has another ETag or date now")
    state.validator = validator
    total = _total_of(response, state)
    if state.total is not None and total != state.total:
        raise changed(f"it had {state.total} bytes, now it has {total}")
    state.total = total


def _total_of(response: httpx.Response, state: RemoteFile) -> int | None:
    """Return the whole size; a 200 starts the body again."""
    if response.status_code == 200:
        state.written = 0
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != state.written:
        raise TryAgain("it sent another range than requested")
    return None if match[3] == "*" else int(match[3])


def validator_of(response: httpx.Response) -> str | None:
    """Return what distinguishes two states of the file: a strong ETag, else the date."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    modified = response.headers.get("Last-Modified")
    return str(modified) if modified else None


def bad_url(error: Exception) -> InputFault:
    """Return the failure of a URL, or of a redirect's, after one of `BAD_URL`."""
    if isinstance(error, httpx.UnsupportedProtocol):
        return InputFault(f"The source's server redirects to a URL that is not http(s): {error}")
    return InputFault(f"The source's URL does not work: {error}")


def changed(how: str) -> InputFault:
    """Return the failure of a source that changed."""
    return InputFault(f"The source changed while it was read: {how}.")
