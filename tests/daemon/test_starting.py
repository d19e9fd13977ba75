"""While the daemon starts, it is alive and not ready, and answers every request with that."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.daemon.kit import COMMAND, KEY, environment, run

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.api.starting import starting_app
from distconvd.dispatch import Dispatcher
from distconvd.dispatch.records import encode
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.server import Server, serve
from distconvd.model import Job
from distconvd.testing.daemon import KEY as MEMORY_KEY
from distconvd.testing.daemon import Client, MemoryListener, open_daemon

SLOW_STORE = """
import trio
from distconv_plugins.stores.memory import MemoryStore
from distconvd import hookimpl

class Slow(MemoryStore):
    async def load(self):
        print("loading", flush=True)
        with open("go") as go:
            await trio.to_thread.run_sync(go.read)
        return await super().load()

@hookimpl
def distconvd_register_stores(registrar):
    registrar.add("slow", lambda context: Slow())
"""


def asked(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, Any, str]:
    connection.request(method, path, headers={"X-API-Key": KEY})
    reply = connection.getresponse()
    body = reply.read()
    is_json = "json" in (reply.getheader("Content-Type") or "")
    return reply.status, json.loads(body) if is_json else body, reply.getheader("Retry-After") or ""


@pytest.mark.e2e
def test_readyz_is_503_while_the_state_is_read_and_the_same_connection_is_served_later(
    tmp_path: Path,
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_STORE)
    os.mkfifo(tmp_path / "go")
    opener = os.open(tmp_path / "go", os.O_RDWR)  # so that opening the FIFO blocks neither side
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    process = subprocess.Popen(
        [*COMMAND, *flags, "--plugin", "./slow.py", "--store", "slow"], cwd=tmp_path,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        assert asked(connection, "GET", "/livez")[:2] == (200, b"OK")
        status, answer, after = asked(connection, "GET", "/readyz")
        assert (status, after) == (503, "1")
        assert answer["ready"] is False
        assert "reading its state" in answer["causes"]["starting"]
        for method, path in (("GET", "/jobs/"), ("POST", "/jobs/"), ("GET", "/"), ("PUT", "/x/y")):
            status, answer, after = asked(connection, method, path)
            assert (status, answer["type"], after) == (503, "urn:distconv:problem:unavailable", "1")
        os.close(opener)
        assert " ready on " in process.stdout.readline()
        assert asked(connection, "GET", "/readyz")[0] == 200
        assert asked(connection, "GET", "/jobs/")[:2] == (200, [])
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.e2e
@pytest.mark.parametrize("flag", ["--store", "--policy", "--auth"])
def test_an_unknown_choice_is_reported_before_anything_is_opened(tmp_path: Path, flag: str) -> None:
    """Even if the address is taken: the configuration has to be corrected first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--host", "127.0.0.1", "--port", port, flag, "nosuch", cwd=tmp_path)
    assert (done.returncode, "'nosuch'" in done.stderr) == (78, True)
    assert list(tmp_path.iterdir()) == []


async def test_connections_opened_during_the_start_are_served_by_the_real_routes_later(
    nursery: trio.Nursery,
) -> None:
    async with open_daemon() as daemon:
        send, receive = trio.open_memory_channel[trio.abc.Stream](0)
        server: Server = await nursery.start(
            serve, [MemoryListener(receive)], starting_app(), EdgeLimits()
        )

        class Elsewhere:
            async def connect(self) -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                await send.send(theirs)
                return ours

        client = Client(Elsewhere(), {"x-api-key": MEMORY_KEY})  # type: ignore[arg-type]
        assert (await client.get("/api/v1/readyz/")).status == 503
        assert (await client.get("/jobs/")).headers["retry-after"]
        assert (await client.request("OPTIONS", "/jobs/")).status == 204
        assert (await client.post("/livez")).status == 405
        assert (await client.request("HEAD", "/livez")).status == 200
        server.answer_with(daemon.parts.app)
        assert (await client.get("/jobs/")).json() == []
        assert (await client.get("/readyz")).json()["ready"] is True
        await server.drain(1)


@pytest.mark.parametrize("inline_max,in_thread", [(4, True), (5, False)])
async def test_a_large_state_is_loaded_outside_the_event_loop_a_small_one_inline(
    monkeypatch: pytest.MonkeyPatch, inline_max: int, in_thread: bool
) -> None:
    threads: list[int] = []

    class Spy(Dispatcher):
        def __init__(self, *args: Any) -> None:
            threads.append(threading.get_ident())
            super().__init__(*args)

    monkeypatch.setattr("distconvd.daemon.LOADED_INLINE_MAX", inline_max)
    monkeypatch.setattr("distconvd.daemon.Dispatcher", Spy)
    memory = Memory()
    for job_id in (f"{n}_0" for n in range(5)):
        memory.tables["jobs"][job_id] = encode(Job(job_id, "http://h/a", "h264"))
    async with open_daemon(store=MemoryStore(memory)) as daemon:
        assert len((await daemon.client.get("/jobs/")).json()) == 5
    assert (threads[0] != threading.get_ident()) == in_thread
