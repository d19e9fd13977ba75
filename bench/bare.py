"""Serve the baseline: trio and h11 with a constant 300-byte reply, and nothing else.

It reads whole request bodies, so that it is a lower bound for submissions, too.
Run as `python -m bench.bare PORT`; it prints a line when it listens.
"""

import sys

import h11
import trio

BODY = b'{"padding":"' + b"x" * 286 + b'"}'
HEADERS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]


async def serve(stream: trio.SocketStream) -> None:
    """Answer every request of one keep-alive connection."""
    connection = h11.Connection(h11.SERVER)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.EndOfMessage):
            head = connection.send(h11.Response(status_code=200, headers=HEADERS))
            body = connection.send(h11.Data(BODY))
            end = connection.send(h11.EndOfMessage())
            await stream.send_all((head or b"") + (body or b"") + (end or b""))
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


async def main(port: int) -> None:
    """Listen on loopback until the process is killed."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=1024)
    print("ready", flush=True)
    await trio.serve_listeners(_serve_quietly, listeners)


async def _serve_quietly(stream: trio.SocketStream) -> None:
    try:
        await serve(stream)
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        pass  # the load generator closes its connections when its time is up
    finally:
        await trio.aclose_forcefully(stream)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
