"""Check the key of a long poll again while it waits and before it is answered.

A key may be revoked, or expire, while its request waits for a minute. So it is checked every few
seconds, as for websockets and event streams, and once more when the wait is over.
"""

import trio

from distconvd.auth import wrong_key
from distconvd.edge.http import RECHECK_S, Request, is_still_authorized
from distconvd.edge.long_poll import wait_while_wanted


async def wait_while_authorized(request: Request, event: trio.Event, timeout_s: float) -> None:
    """Wait for an event until the timeout or until the client has gone; raises `Unauthorized`."""
    deadline_s = trio.current_time() + timeout_s
    while (left_s := deadline_s - trio.current_time()) > 0:
        await wait_while_wanted(request, event.wait, min(left_s, RECHECK_S))
        require_still_authorized(request)
        if event.is_set() or (request.link is not None and request.link.over):
            return


def require_still_authorized(request: Request) -> None:
    """Raise `Unauthorized` if the key of a request is no longer accepted."""
    if not is_still_authorized(request):
        raise wrong_key()
