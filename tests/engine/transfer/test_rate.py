"""A source that sends too slowly is given up, however it goes about it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from distconv_engine.failures import InsufficientSpace, TransientFault
from distconv_engine.transfer.download import download
from distconv_engine.transfer.range_reader import RangeReader
from distconv_engine.transfer.rate import RateMeter

SIZE = 10_000_000
Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def trickle(bytes_per_s: int, break_after: int = SIZE, head_s: float = 0.0) -> Answer:
    """Return a server that sends so many bytes a second, and breaks off after some."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(head_s)
        first, _, last = (
            request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        )
        stop = int(last) + 1 if last else SIZE

        async def body() -> AsyncIterator[bytes]:
            for _ in range(int(first), min(stop, int(first) + break_after), bytes_per_s):
                await trio.sleep(1)
                yield b"x" * bytes_per_s
            raise httpx.ReadError("it broke off")

        headers = {"ETag": '"a"', "Content-Range": f"bytes {first}-{stop - 1}/{SIZE}"}
        status = 206 if "range" in request.headers else 200
        return httpx.Response(status, headers=headers, content=body())

    return answer


async def fetch(
    answer: Answer, path: Path, on_total: Callable[[int, int], None] = lambda total, here: None
) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await download(
            client, "http://h/a", path,
            tries=4, rate=RateMeter(6000), on_total=on_total, on_progress=lambda part: None,
        )  # fmt: skip


async def stream(answer: Answer, path: Path) -> None:
    async def drop(_: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        reader = RangeReader(client, "http://h/a", key=None, tries=4, rate=RateMeter(6000))
        await reader.open()
        await reader.copy(0, SIZE, drop)


@pytest.mark.parametrize("read", [fetch, stream])
@pytest.mark.parametrize(
    "answer",
    [trickle(1), trickle(1, break_after=1), trickle(1, break_after=1, head_s=20), trickle(50)],
    ids=["trickles", "breaks off at each byte", "waits before each byte", "half as fast"],
)
async def test_a_source_slower_than_the_least_rate_is_given_up_within_minutes(
    autojump_clock: MockClock,
    tmp_path: Path,
    read: Callable[[Answer, Path], Awaitable[None]],
    answer: Answer,
) -> None:
    began_s = trio.current_time()
    with pytest.raises(TransientFault, match=r"sends too slowly: .* source_rate_min"):
        await read(answer, tmp_path / "s")
    assert trio.current_time() - began_s < 200


async def test_time_in_which_nobody_waits_for_the_source_does_not_count(
    autojump_clock: MockClock,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x"

    async with RateMeter(6000).pieces(httpx.Response(200, content=pieces())) as body:
        async for _ in body:
            await trio.sleep(100)


async def test_a_source_without_a_length_is_stopped_before_the_disk_is_full(tmp_path: Path) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            while True:
                await trio.lowlevel.checkpoint()
                yield b"x" * 100_000

        return httpx.Response(200, content=body())

    def reserve(total: int, here: int) -> None:
        if total > 5_000_000:
            raise InsufficientSpace("there is no room for it")

    with pytest.raises(InsufficientSpace):
        await fetch(answer, tmp_path / "s", reserve)
    assert (tmp_path / "s").stat().st_size <= 6_200_000
