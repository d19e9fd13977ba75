"""Test `GET /events`: numbers, filters, resuming within the buffer, keep-alive, the drain."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from tests.api.kit import Farm, later, problem
from trio.testing import MockClock

from distconvd.testing.daemon import open_daemon


class StreamedEvent(NamedTuple):
    """One event or comment of a stream."""

    kind: str
    number: int | None
    data: Any


class Stream:
    """A stream of events, parsed as a browser does it."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._text = b""

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> StreamedEvent:
        while b"\n\n" not in self._text:
            self._text += await anext(self._chunks)
        block, _, self._text = self._text.partition(b"\n\n")
        if block.startswith(b":"):
            return StreamedEvent("comment", None, block[1:].decode().strip())
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        number = int(fields["id"]) if "id" in fields else None
        return StreamedEvent(fields["event"], number, msgspec.json.decode(fields["data"]))


async def follow(farm: Farm, count: int, query: str = "", **headers: str) -> list[StreamedEvent]:
    """Return the first `count` events of a stream, without comments."""
    found: list[StreamedEvent] = []
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with farm.client.exchange("GET", f"/events{query}", None, named) as (reply, chunks):
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream"
        async for event in Stream(chunks):
            if event.kind != "comment":
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_events_are_published_as_they_happen_with_growing_numbers(farm: Farm) -> None:
    async with farm.client.exchange("GET", "/events") as (_, chunks):
        stream = Stream(chunks)
        assert (await anext(stream)).kind == "comment"
        job = await farm.assigned()
        event = [await anext(stream) for _ in range(3)]
    assert [t.kind for t in event] == ["job.submitted", "engine.registered", "job.assigned"]
    numbers = [t.number for t in event]
    assert numbers == sorted(set(numbers), key=lambda n: n or 0)
    last = event[2].data
    assert (last["kind"], last["job_id"], last["engine_id"]) == (
        "job.assigned",
        job["job_id"],
        "e1",
    )
    assert last["record"]["status"] == "assigned"


async def test_without_last_event_id_past_events_are_not_sent(farm: Farm) -> None:
    await farm.submit()
    async with farm.client.exchange("GET", "/events") as (_, chunks):
        stream = Stream(chunks)
        await anext(stream)
        second = await farm.submit()
        assert (await anext(stream)).data["job_id"] == second["job_id"]


async def test_a_reader_that_reconnects_gets_the_events_it_missed(farm: Farm) -> None:
    made = [(await farm.submit())["job_id"] for _ in range(5)]
    first = await follow(farm, 5, last_event_id=str(farm.daemon.parts.event_bus.number - 5))
    assert [t.data["job_id"] for t in first] == made
    rest = await follow(farm, 3, last_event_id=str(first[1].number))
    assert rest == first[2:]


@pytest.mark.parametrize("number", ["1", "999999999999999999"])
async def test_a_number_older_than_the_buffer_is_answered_with_a_gap_event(
    farm: Farm, number: str
) -> None:
    await farm.submit()
    event = await follow(farm, 2, last_event_id=number)
    assert [t.kind for t in event] == ["gap", "job.submitted"]
    assert event[0].data == {"kind": "gap", "after": int(number)}


async def test_the_buffer_is_bounded(farm: Farm) -> None:
    first = farm.daemon.parts.event_bus.number
    body = b'{"source_url":"http://h/a","target_codec":"h264"}\n' * 600
    for _ in range(2):
        await farm.client.post("/jobs/", body, content_type="application/x-ndjson")
    event = await follow(farm, 2, last_event_id=str(first))
    assert (event[0].kind, event[1].number) == ("gap", first + 201)


async def test_event_numbers_grow_across_a_restart(autojump_clock: MockClock) -> None:
    numbers: list[int] = []
    for _ in range(2):
        async with open_daemon() as daemon:
            await Farm(daemon).submit()
            numbers.append(daemon.parts.event_bus.number)
        await trio.sleep(1)
    assert numbers[1] > numbers[0]


async def test_job_and_kind_filter_the_events(farm: Farm) -> None:
    start = str(farm.daemon.parts.event_bus.number)
    job = await farm.assigned()
    await farm.submit()
    query = f"?job={job['job_id']}&kind=job.assigned,job.submitted"
    event = await follow(farm, 2, query, last_event_id=start)
    assert [t.kind for t in event] == ["job.submitted", "job.assigned"]
    await farm.client.delete(f"/jobs/{job['job_id']}")
    event = await follow(farm, 1, "?kind=job.cancelled&kind=job.failed", last_event_id=start)
    assert event[0].data["job_id"] == job["job_id"]


@pytest.mark.parametrize("query,field", [("?kind=job.eaten", "kind"), ("?kind=", "kind")])
async def test_an_unknown_kind_is_400(farm: Farm, query: str, field: str) -> None:
    assert problem(await farm.client.get(f"/events{query}"), 400)["field"] == field


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 40])
async def test_an_invalid_event_number_is_400(farm: Farm, number: str) -> None:
    reply = await farm.client.get("/events", last_event_id=number)
    assert problem(reply, 400)["field"] == "Last-Event-ID"


async def test_a_quiet_stream_gets_a_comment_every_fifteen_seconds(
    autojump_clock: MockClock, farm: Farm
) -> None:
    async with farm.client.exchange("GET", "/events") as (_, chunks):
        stream = Stream(chunks)
        await anext(stream)
        at_s = trio.current_time()
        for n in (1, 2, 3):
            assert (await anext(stream)).kind == "comment"
            assert trio.current_time() - at_s == pytest.approx(15 * n, abs=0.5)


async def test_the_stream_ends_when_its_reader_hangs_up(
    autojump_clock: MockClock, farm: Farm
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with farm.client.exchange("GET", "/events") as (_, chunks):
        await anext(chunks)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_reader_too_slow_for_the_buffer_is_disconnected_and_the_daemon_continues(
    farm: Farm,
) -> None:
    body = b'{"source_url":"http://h/a","target_codec":"h264"}\n' * 1000
    stream = await farm.daemon.connect(slow=True)
    await stream.send_all(b"GET /events HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\n\r\n")
    said = b""
    while b"distconvd events" not in said:
        said += await stream.receive_some()
    await farm.submit()
    for _ in range(3):
        await farm.client.post("/jobs/", body, content_type="application/x-ndjson")
    rest = b""
    async with stream:
        async for chunk in stream:
            rest += chunk
            if b"too slow" in rest:
                break
    assert b"too slow" in rest
    assert rest.count(b"event: ") < 2001


async def test_a_drain_ends_the_stream(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, daemon.client.exchange("GET", "/events") as (_, chunks):
        await anext(chunks)
        at_s = trio.current_time()
        daemon.stop()
        assert [chunk async for chunk in chunks][1:] == []
        assert trio.current_time() - at_s < 0.1


async def test_an_event_is_published_only_once_it_is_durable(
    farm: Farm, nursery: trio.Nursery
) -> None:
    store: Any = farm.daemon.store
    async with farm.client.exchange("GET", "/events") as (_, chunks):
        stream = Stream(chunks)
        await anext(stream)
        store.block_commits()
        await later(nursery, farm.client.post, "/jobs/", {"source_url": "http://h/a", "target_codec": "h264"})  # fmt: skip
        with trio.move_on_after(0.05) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        store.release()
