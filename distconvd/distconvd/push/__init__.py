"""Push work, cancels and drains to connected engines immediately, over a websocket.

HTTP alone is sufficient, and push only saves latency: every message here could be sent over HTTP,
with the same commands, and losing a socket loses nothing. While an engine is connected, it counts as
waiting in a long poll; what is assigned to it is sent after the commit, like every other reply.

`api` opens websockets and passes events to them, `session` is one connection, `inbox` handles the
engine's messages, `commands` are the commands of a connection, `handshake` checks the opening
request, and `socket` is the only module that knows trio-websocket.
"""

from distconvd.push.api import PushApi
from distconvd.push.limits import PushLimits

__all__ = ["PushApi", "PushLimits"]
