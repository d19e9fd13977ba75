"""Long polls end with their key: who waits is asked for it again before there is an answer.

A key may be revoked, or end, while its request waits for a minute. So it is looked at now and then,
as it is for websockets and streams of events, and once more when the wait is over.
"""

import trio

from distconvd.auth import wrong_key
from distconvd.edge.http import RECHECK_S, Request, still_let_in
from distconvd.edge.long_poll import wait_while_wanted


async def wait_while_let_in(request: Request, event: trio.Event, timeout_s: float) -> None:
    """Wait for an event, until time is up or nobody listens any more; raises `Unauthorized`."""
    deadline_s = trio.current_time() + timeout_s
    while (left_s := deadline_s - trio.current_time()) > 0:
        await wait_while_wanted(request, event.wait, min(left_s, RECHECK_S))
        check_let_in(request)
        if event.is_set() or (request.link is not None and request.link.over):
            return


def check_let_in(request: Request) -> None:
    """Raise `Unauthorized` where the key of a request would not be let in any more."""
    if not still_let_in(request):
        raise wrong_key()
