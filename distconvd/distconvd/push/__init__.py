"""Push: engines that keep a websocket are told of work, cancels and drains at once.

Pull is the truth and push only saves latency: whatever is said here could be said over HTTP, by the
same commands, and losing a socket loses nothing. An engine is parked with the dispatcher as long as
it is connected; what is assigned to it meanwhile is told after the commit, like everything else.

`api` is the way in (route, hub, events), `session` one connection, `inbox` what engines say,
`commands` what a connection means to the dispatcher, `handshake` who is let in, and `socket` the
one module that knows trio-websocket.
"""

from distconvd.push.api import PushApi
from distconvd.push.limits import PushLimits

__all__ = ["PushApi", "PushLimits"]
