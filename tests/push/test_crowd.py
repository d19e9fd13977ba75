"""Two thousand engines that are connected and idle."""

import time

import trio
from tests.api.kit import Farm
from tests.push.kit import Engine, Wall
from trio.testing import MockClock, wait_all_tasks_blocked

from distconvd.testing.daemon import Daemon

ENGINES = 2_000


async def test_with_two_thousand_idle_engines_each_job_reaches_exactly_the_right_one(
    autojump_clock: MockClock, daemon: Daemon, farm: Farm, wall: Wall
) -> None:
    began_s = time.process_time()  # others may want this machine, too
    crowd: dict[str, Engine] = {}

    async def join(number: int) -> None:
        engine_id = f"e{number}"
        crowd[engine_id] = await wall.ready(
            engine_id, benchmark_time=float(number), supported_codecs=[f"codec{number % 4}"]
        )

    async with trio.open_nursery() as nursery:
        for number in range(ENGINES):
            nursery.start_soon(join, number)
    assert len(daemon.parts.push.sessions) == ENGINES
    heard: list[tuple[str, str]] = []

    async def listen(engine: Engine) -> None:
        while True:
            heard.append((engine.engine_id, (await engine.job())["job_id"]))

    async with trio.open_nursery() as nursery:
        for engine in crowd.values():
            nursery.start_soon(listen, engine)
        wanted = []
        # The fastest four of a codec, then its slowest four.
        for size, engines in ((60, (2, 6, 10, 14)), (1, (1998, 1994, 1990, 1986))):
            for number in engines:
                job = await farm.submit(job_size=size, target_codec="codec2")
                wanted.append((f"e{number}", job["job_id"]))
        await wait_all_tasks_blocked()
        assert heard == wanted
        nursery.cancel_scope.cancel()
    assert time.process_time() - began_s < 10
