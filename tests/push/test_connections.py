"""Test who gets a websocket, what ends it, and that its end loses nothing."""

import logging
from pathlib import Path

import pytest
import trio
from tests.api.kit import Farm, problem
from tests.push.kit import HANDSHAKE, Wall, frame, lockstep_socket, raw_socket, read_until_end
from trio.testing import MockClock, wait_all_tasks_blocked

from distconv_plugins.stores.memory import MemoryStore
from distconvd.auth_keys.key_file import add_key
from distconvd.testing.daemon import Daemon, open_daemon

SESSION_PATH = "/engines/e1/ws"

# ---------------------------------------------------------------------------------- who gets one


@pytest.mark.parametrize(
    "name, value",
    [
        ("sec-websocket-protocol", "v2.distconv"),
        ("sec-websocket-protocol", None),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "c2hvcnQ="),
        ("sec-websocket-key", "not base64!"),
        ("sec-websocket-key", None),
        ("upgrade", "h2c"),
        ("upgrade", None),
        ("connection", "close"),
    ],
)
async def test_an_invalid_handshake_is_rejected_before_the_upgrade(
    name: str, value: str | None, daemon: Daemon
) -> None:
    headers = {**HANDSHAKE, name: value}
    kept = {key: text for key, text in headers.items() if text is not None}
    problem(await daemon.client_with(kept).get(SESSION_PATH), 400)


async def test_a_handshake_with_a_body_is_rejected(daemon: Daemon) -> None:
    problem(await daemon.client_with(HANDSHAKE).request("GET", SESSION_PATH, b"body"), 400)


async def test_an_invalid_engine_id_is_rejected(daemon: Daemon) -> None:
    reply = await daemon.client_with(HANDSHAKE).get(f"/engines/{'e' * 200}/ws")
    assert problem(reply, 400)["field"] == "engine_id"


@pytest.mark.parametrize("key", ["wrong", None])
async def test_a_bad_key_is_rejected_before_the_upgrade(key: str | None, daemon: Daemon) -> None:
    headers = {name: text for name, text in HANDSHAKE.items() if name != "x-api-key"}
    if key is not None:
        headers["x-api-key"] = key
    problem(await daemon.client_with(headers).get(SESSION_PATH), 401)


async def test_the_reply_names_the_subprotocol(wall: Wall) -> None:
    assert (await wall.plug()).socket.subprotocol == "v1.distconv"


# ------------------------------------------------------------------------------- what ends it


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"type": "heartbeat"}', '{"id": -1}', "1" * 9])
async def test_a_message_without_an_id_closes_with_1007(text: str, wall: Wall) -> None:
    engine = await wall.plug()
    await engine.socket.send_message(text)
    assert (await engine.end())[0] == 1007


async def test_too_deep_nesting_closes_with_1007(wall: Wall) -> None:
    engine = await wall.plug()
    await engine.socket.send_message("[" * 500_000)
    assert (await engine.end())[0] == 1007


async def test_a_binary_message_closes_with_1003(wall: Wall) -> None:
    engine = await wall.plug()
    await engine.socket.send_message(b'{"type": "heartbeat", "id": 1}')
    assert (await engine.end())[0] == 1003


async def test_an_oversized_message_closes_with_1009(wall: Wall) -> None:
    engine = await wall.plug()
    with trio.move_on_after(5):
        await engine.socket.send_message("x" * 3_000_000)
    assert (await engine.end())[0] == 1009


@pytest.mark.parametrize(
    "data, code",
    [
        (frame(1, b"\xff\xfe"), 1007),
        (frame(3, b"what"), 1002),
        (b"\x81\x02{}", 1002),  # not masked
        (frame(9, b"x" * 126), 1002),  # a control frame that is too long
        (frame(0, b"goes on with nothing"), 1002),
    ],
)
async def test_a_malformed_frame_closes_with_the_code_of_rfc_6455(
    data: bytes, code: int, autojump_clock: MockClock, daemon: Daemon
) -> None:
    stream = await raw_socket(daemon)
    await stream.send_all(data)
    said = await read_until_end(stream)
    assert said[0] == 0x88
    assert int.from_bytes(said[2:4], "big") == code


async def test_a_message_in_fragments_is_one_message(daemon: Daemon) -> None:
    stream = await raw_socket(daemon)
    text = b'{"type":"heartbeat","id":5,"body":{"engine_id":"e1"}}'
    for sent in (frame(1, text[:20], first=0), frame(9, b"?"), frame(0, text[20:])):
        await stream.send_all(sent)
    await wait_all_tasks_blocked()
    said = bytes(await stream.receive_some(10_000))
    assert said.startswith(b"\x8a\x01?")
    assert b'"id":5' in said
    await trio.aclose_forcefully(stream)


async def test_a_ping_while_the_daemon_closes_is_not_a_fault(
    autojump_clock: MockClock, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await raw_socket(daemon)
    await stream.send_all(frame(2, b"binary") + frame(9, b"?") * 3)
    assert (1003).to_bytes(2, "big") in await read_until_end(stream)
    ours = [r for r in caplog.records if r.name in ("distconvd.push", "distconvd.edge")]
    assert [r for r in ours if r.levelno >= logging.WARNING] == []


async def test_a_half_open_connection_is_pinged_and_then_closed(
    autojump_clock: MockClock, daemon: Daemon, farm: Farm
) -> None:
    await farm.beat()
    stream = await raw_socket(daemon)
    began_s = trio.current_time()
    said = await read_until_end(stream)
    assert 35 < trio.current_time() - began_s < 60
    assert said[0] == 0x89
    assert (1011).to_bytes(2, "big") in said
    assert daemon.parts.push.sessions == {}
    assert daemon.parts.dispatcher.state.engine("e1").long_polls == 0


@pytest.mark.slow
async def test_a_silent_engine_that_answers_pings_stays(
    autojump_clock: MockClock, farm: Farm, wall: Wall
) -> None:
    engine = await wall.plug()
    await trio.sleep(3600)
    await farm.submit()
    await engine.beat()
    await engine.job()


async def test_a_slow_reader_is_disconnected_with_1013_and_keeps_its_lease(
    daemon: Daemon, farm: Farm, autojump_clock: MockClock
) -> None:
    job = await farm.assigned()
    stream = await lockstep_socket(daemon)
    said = bytearray(await stream.receive_some())  # the job, once more
    for _ in range(40):
        await farm.client.post("/engines/e1/drain")
        await farm.client.post("/engines/e1/resume")
    assert daemon.parts.dispatcher.state.engine("e1").long_polls == 0
    said += await read_until_end(stream)
    assert (1013).to_bytes(2, "big") in said
    assert said.count(b"draining") == 1
    assert (await farm.job(job["job_id"]))["status"] == "assigned"


async def test_a_reader_that_has_stopped_is_disconnected_without_a_close_frame(
    daemon: Daemon, farm: Farm, autojump_clock: MockClock
) -> None:
    await farm.beat()
    await lockstep_socket(daemon)
    await farm.client.post("/engines/e1/drain")
    await trio.sleep(20)
    assert daemon.parts.push.sessions == {}


async def test_an_engine_that_sends_without_reading_is_slowed_down_and_then_disconnected(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    stream = await lockstep_socket(daemon)
    beat = frame(1, b'{"type":"heartbeat","id":5,"body":{"engine_id":"e1"}}')
    sent = 0

    async def talk() -> None:
        nonlocal sent
        while True:
            await stream.send_all(beat)
            sent += 1

    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await talk()
    assert 64 <= sent <= 70


async def test_the_first_live_holder_of_an_id_keeps_it_and_the_newcomer_is_refused_by_name(
    farm: Farm, wall: Wall
) -> None:
    first = await wall.ready()
    newcomer = await wall.plug()
    assert await newcomer.end() == (4001, "another engine is connected as e1")
    submitted = await farm.submit()
    assert (await first.job())["job_id"] == submitted["job_id"]


async def test_a_holder_that_does_not_answer_loses_its_id(
    daemon: Daemon, farm: Farm, wall: Wall, autojump_clock: MockClock
) -> None:
    silent = await raw_socket(daemon)
    await wait_all_tasks_blocked()
    newcomer = await wall.ready()
    submitted = await farm.submit()
    assert (await newcomer.job())["job_id"] == submitted["job_id"]
    assert daemon.parts.dispatcher.state.engine("e1").long_polls <= 1
    assert b"replaced" in await read_until_end(silent)


async def test_a_key_of_this_engine_alone_takes_over_from_one_that_is_for_any(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    path = tmp_path / "keys.json"
    anybody = add_key(path, "anybody", ["engine"], 0)
    own = add_key(path, "e1", ["engine"], 0, engine="e1")
    async with open_daemon(key_file=str(path)) as daemon:
        wall = Wall(daemon, nursery)
        usurper = await wall.plug(key=anybody)
        await wait_all_tasks_blocked()
        owner = await wall.plug(key=own)
        assert (await usurper.end())[0] == 4001
        assert (await (await wall.plug(key=anybody)).end())[0] == 4001
        assert (await owner.beat())["state"] == "idle"


async def test_a_daemon_that_stops_closes_with_1012(
    daemon: Daemon, wall: Wall, autojump_clock: MockClock
) -> None:
    engine = await wall.ready()
    daemon.stop()
    assert await engine.end() == (1012, "the daemon is stopping")


# -------------------------------------------------------------------- that its end loses nothing


async def test_an_assignment_lost_with_its_connection_is_sent_again(farm: Farm, wall: Wall) -> None:
    await wall.ready()
    submitted = await farm.submit()
    await wait_all_tasks_blocked()
    await wall.hang_up()
    await wait_all_tasks_blocked()
    job = await (await wall.plug()).job()
    assert (job["job_id"], job["attempt"]) == (submitted["job_id"], 1)


async def test_an_assignment_named_in_a_heartbeat_is_not_sent_again(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    job = await farm.submit()
    await engine.job()
    await engine.beat(jobs=[{"job_id": job["job_id"], "attempt": 1}])
    await wall.hang_up()
    assert await (await wall.plug()).is_silent()


async def test_losing_the_socket_ends_no_attempt_and_http_goes_on(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    job = await farm.submit()
    await engine.job()
    await wall.hang_up()
    await wait_all_tasks_blocked()
    assert (await farm.job(job["job_id"]))["status"] == "assigned"
    body = {"output_url": "http://example.com/o.mp4", "attempt": 1}
    reply = await farm.client.post(f"/jobs/{job['job_id']}/complete", body)
    assert reply.status == 200


async def test_an_engine_that_has_hung_up_gets_no_assignment(
    daemon: Daemon, farm: Farm, wall: Wall
) -> None:
    await wall.ready()
    await wall.hang_up()
    await wait_all_tasks_blocked()
    assert daemon.parts.push.sessions == {}
    job = await farm.submit()
    assert (await farm.job(job["job_id"]))["status"] == "pending"


async def test_a_removed_engine_that_registers_again_gets_work_on_the_same_socket(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    await farm.client.delete("/engines/e1")
    submitted = await farm.submit()
    await farm.beat()  # by HTTP
    assert (await engine.job())["job_id"] == submitted["job_id"]


async def test_an_assignment_lost_by_http_is_delivered_by_websocket(
    autojump_clock: MockClock, farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    await farm.submit()
    job = await engine.job()
    await trio.sleep(6)  # virtual: redeliver_s
    await farm.beat(jobs=[])  # by HTTP: the engine does not know of the job
    assert (await engine.job())["job_id"] == job["job_id"]


# --------------------------------------------------------------------- nothing before its commit


async def test_no_assignment_is_sent_before_it_is_durable(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with open_daemon(store=store) as daemon, trio.open_nursery() as nursery:
        farm, wall = Farm(daemon), Wall(daemon, nursery)
        engine = await wall.ready()
        store.block_commits()
        nursery.start_soon(farm.submit)
        assert await engine.is_silent()
        store.release()
        await engine.job()
        await wall.hang_up()
        nursery.cancel_scope.cancel()


async def test_an_assignment_that_cannot_be_stored_is_never_sent(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with open_daemon(store=store) as daemon, trio.open_nursery() as nursery:
        farm, wall = Farm(daemon), Wall(daemon, nursery)
        engine = await wall.ready()
        store.fail_next(OSError("the disk is full"))
        body = {"source_url": "http://example.com/a.mp4", "target_codec": "h264"}
        problem(await farm.client.post("/jobs/", body), 503)
        assert await engine.is_silent()
        await trio.sleep(2)
        await farm.submit()
        await engine.job()
        await wall.hang_up()
        nursery.cancel_scope.cancel()
