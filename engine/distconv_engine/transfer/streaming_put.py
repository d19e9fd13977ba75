"""PUT a body that is still being made, and read back what the server got.

Such an upload has no second try: what was sent is stored nowhere.
"""

import hashlib
from collections.abc import AsyncIterator

import httpx
import trio

from distconv_engine.failures import InputFault, TransientFault, VerificationFault
from distconv_engine.files import describe_fault
from distconv_engine.key import with_key
from distconv_engine.transfer.destination import HttpTarget
from distconv_engine.transfer.guard import output_at
from distconv_engine.transfer.publish import PUT_TIMEOUT, refused

_READ_BACK_TRIES = 3
_NOT_READABLE = frozenset({401, 403, 404, 405, 410, 501})
"""Some targets can be written to but not read from, such as a pre-signed URL."""


async def put_body(
    client: httpx.AsyncClient,
    target: HttpTarget,
    body: AsyncIterator[bytes],
    *,
    key: str | None,
    content_type: str,
) -> None:
    """Send `body`; returns when the server has accepted all of it, else raises a `JobFailure`."""
    headers = with_key({"Content-Type": content_type}, key if target.is_media_store else None)
    try:
        reply = await client.put(
            target.url,
            content=body,
            headers=headers,
            timeout=PUT_TIMEOUT,
            follow_redirects=False,
            extensions=output_at(target.url),
        )
    except httpx.TransportError as error:
        reason = describe_fault(error)
        raise TransientFault(f"The output cannot be uploaded to {target.url}: {reason}.") from error
    except httpx.InvalidURL as error:
        raise InputFault(f"The output's URL does not work: {error}") from error
    if not reply.is_success:
        reason = f"it answered {reply.status_code}"
        busy = reply.status_code >= 500 or reply.status_code in (408, 425, 429)
        if not busy:
            raise refused(target, reason)
        raise TransientFault(f"The output cannot be uploaded to {target.url}: {reason}.")


async def is_read_back(
    client: httpx.AsyncClient,
    target: HttpTarget,
    *,
    key: str | None,
    sha256: str,
    size_bytes: int,
) -> bool:
    """Read the uploaded output back and compare it; returns whether the target lets it be read.

    Raises:
        VerificationFault: the server has other bytes.
        TransientFault: the server is unavailable.
    """
    headers = with_key({"Accept-Encoding": "identity"}, key if target.is_media_store else None)
    reason = ""
    for _ in range(_READ_BACK_TRIES):
        try:
            found = await _read_back_once(client, target.url, headers)
        except httpx.TransportError as error:
            reason = describe_fault(error)
            await trio.sleep(1)
            continue
        if found is not None and found != (sha256, size_bytes):
            raise VerificationFault(
                f"{target.url} returned other bytes than were sent: {found[1]} bytes instead of "
                f"{size_bytes}, or with another SHA-256."
            )
        return found is not None
    raise TransientFault(f"The output cannot be read back from {target.url}: {reason}.")


async def _read_back_once(
    client: httpx.AsyncClient, url: str, headers: httpx.Headers
) -> tuple[str, int] | None:
    """Return the digest and the size of what is there, or None if it may not be read."""
    digest, size = hashlib.sha256(), 0
    has_key = "X-API-Key" in headers
    async with client.stream(
        "GET",
        url,
        headers=headers,
        timeout=PUT_TIMEOUT,
        follow_redirects=not has_key,
        extensions=output_at(url),
    ) as reply:
        if reply.status_code in _NOT_READABLE:
            return None
        if reply.status_code != 200:
            raise httpx.RemoteProtocolError(f"it answered {reply.status_code}")
        async for piece in reply.aiter_raw():
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
