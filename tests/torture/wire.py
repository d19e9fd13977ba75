"""Send HTTP requests under load: one kept-alive connection, one request at a time, JSON.

It distinguishes what matters to an audit: a complete reply, and everything else (`Gone`), after
which nobody knows whether the request was carried out.
"""

import h11
import msgspec
import trio


class Gone(Exception):
    """There was no complete reply: the daemon was killed, or is not running."""


class Wire:
    """One client of the daemon at `port` on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._machine = h11.Connection(h11.CLIENT)
        self._lock = trio.Lock()

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, object]:
        """Return (status, decoded body or None); raises `Gone`."""
        try:
            async with self._lock:
                with trio.fail_after(30):
                    return await self._call(method, path, body, headers or {})
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.hang_up()
            raise Gone(str(error)) from error
        except (h11.RemoteProtocolError, h11.LocalProtocolError, trio.TooSlowError) as error:
            self.hang_up()
            raise Gone(repr(error)) from error
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Close the connection; the next call opens another.

        It has no checkpoint, so that a cancelled client can close all its connections.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.socket.close()

    async def _call(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[int, object]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            self._machine = h11.Connection(h11.CLIENT)
        raw = b"" if body is None else msgspec.json.encode(body)
        fields = {"Host": "daemon", "Content-Length": str(len(raw)), **headers}
        if raw:
            fields["Content-Type"] = "application/json"
        request = h11.Request(method=method, target=path, headers=list(fields.items()))
        data = self._machine.send(request) or b""
        if raw:
            data += self._machine.send(h11.Data(data=raw)) or b""
        await self._stream.send_all(data + (self._machine.send(h11.EndOfMessage()) or b""))
        return await self._reply(self._stream)

    async def _reply(self, stream: trio.SocketStream) -> tuple[int, object]:
        status, content = 0, b""
        while True:
            event = self._machine.next_event()
            if event is h11.NEED_DATA:
                self._machine.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise trio.BrokenResourceError("the connection ended in a reply")
        if self._machine.their_state is h11.MUST_CLOSE:
            self.hang_up()
        else:
            self._machine.start_next_cycle()
        return status, (msgspec.json.decode(content) if content else None)
