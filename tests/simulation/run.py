"""Run a world: create the actors from the seed, run them until every job has ended, audit."""

from dataclasses import dataclass
from typing import Any

import trio
from tests.simulation.audit import Audit, shown, wait_quiet
from tests.simulation.clients import LANES, Client, Operator
from tests.simulation.engines import Character, Engine, Manner
from tests.simulation.liars import Liar
from tests.simulation.world import World

STEADY = 24
END_WITHIN_S = 1200.0
"""Every job must end within this much virtual time after the submissions."""
SILENCE_S = 300.0
"""Longer than any deadline of the dispatcher's settings."""


@dataclass
class Report:
    """The result of a run."""

    faults: list[str]
    summary: str
    transcript: str
    counts: dict[str, int]


async def simulate(world: World) -> Report:
    """Run a world to its end; call it under an autojump clock and seeded scheduling."""
    faults: list[str] = []
    ready, over = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_rule, world, ready, over, faults)
        await ready.wait()
        async with trio.open_nursery() as actors:
            engines = _cast(world)
            for engine in engines:
                actors.start_soon(engine.run)
            names = [e.name for e in engines if e.is_a.manner not in ("steady", "lane")]
            with trio.move_on_after(world.size.submitting_s + END_WITHIN_S) as patience:
                await _clients(world, names)
                await _until_all_has_ended(world)
            if patience.cancelled_caught:
                faults.append("not all jobs and engines ended in time")
            actors.cancel_scope.cancel()
        over.set()
    faults = Audit(world).faults() + faults
    return Report(faults, _summary(world, faults), world.wire.transcript, _counts(world))


async def _clients(world: World, engines: list[str]) -> None:
    clients = min(world.size.clients, world.size.jobs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Operator(world, engines).run)
        for number in range(clients):
            jobs = world.size.jobs // clients + (number < world.size.jobs % clients)
            nursery.start_soon(Client(world, number, jobs).run)


async def _until_all_has_ended(world: World) -> None:
    """Wait until every job has ended and every engine has reported."""
    while world.chronicle.open:
        await world.chronicle.changed.wait()
    while world.at_work:
        await trio.sleep(5)


async def _rule(world: World, ready: trio.Event, over: trio.Event, faults: list[str]) -> None:
    """Run one daemon after another on the same disk; audit the last one, and one more after it."""
    dice = world.dice("deaths")
    for _ in range(world.size.deaths):
        async with world.reign() as (_, scope):
            ready.set()
            lives_s = world.size.submitting_s / (world.size.deaths + 1)
            await trio.sleep(dice.uniform(0.5, 1.2) * lives_s)
            scope.cancel()
        await trio.sleep(dice.uniform(0, 10))
    async with world.reign() as (daemon, _):
        ready.set()
        await over.wait()
        # No actor is left; whatever still waits for its time becomes due.
        await trio.sleep(SILENCE_S)
        faults += wait_quiet(daemon, world) + await shown(daemon, world)
    async with world.reign() as (daemon, _):
        await trio.sleep(SILENCE_S)
        faults += [f"after a restart: {f}" for f in wait_quiet(daemon, world)]


def _cast(world: World) -> list[Engine]:
    dice = world.dice("cast")
    lane: list[Manner] = ["lane"]
    steady: list[Manner] = ["steady"]
    rest: list[Manner] = ["plain", "flaky", "hanging", "legacy", "liar"]
    others = max(0, world.size.engines - LANES - STEADY)
    manners = lane * LANES + steady * STEADY + dice.choices(rest, [55, 30, 6, 4, 5], k=others)
    engines: list[Engine] = []
    for number, manner in enumerate(manners):
        is_steady = manner in ("lane", "steady")
        tags = [t for t, share in (("gpu", 0.2), ("hdr", 0.1)) if dice.random() < share]
        character = Character(
            name=f"{manner}-{number}",
            manner=manner,
            slots=1 if manner in ("lane", "legacy") else dice.choice([1, 1, 1, 2]),
            codecs=[]
            if is_steady
            else dice.sample(["h264", "hevc", "vp9", "av1"], dice.randint(1, 4)),
            tags=[f"lane-{number}"] if manner == "lane" else ["gpu", "hdr"] if is_steady else tags,
            streams=dice.random() < 0.5,
            benchmark_s=round(dice.uniform(5, 300), 2),
            polls_s=0 if is_steady or dice.random() < 0.04 else dice.uniform(200, 900),
        )
        world.slots[character.name] = character.slots
        engines.append((Liar if manner == "liar" else Engine)(world, character))
    return engines


def _counts(world: World) -> dict[str, int]:
    history = [a for tries in world.books.reports.values() for a in tries]
    moves = {f"{was} to {now}": n for (was, now), n in world.chronicle.moves.items()}
    counts: dict[str, Any] = dict(world.books.counts) | moves
    return counts | {"report tries": len(history), "resumed": world.chronicle.resumed}


def _summary(world: World, faults: list[str]) -> str:
    moves, counts = world.chronicle.moves, world.books.counts
    lies = sum(n for what, n in counts.items() if what.startswith(("lie-", "contradiction")))
    ends = {now: sum(n for (_, b), n in moves.items() if b == now) for _, now in moves}
    return (
        f"simulation seed {world.seed}: {len(world.chronicle.jobs)} jobs,"
        f" {world.size.engines} engines, {world.wire.calls} exchanges in"
        f" {trio.current_time():.0f} s, {len(world.chronicle.given)} attempts"
        f" ({moves['assigned', 'pending']} requeued, {world.chronicle.resumed} resumed),"
        f" ends {ends}, {counts['crash']} crashes, {counts['hang']} hangs, {lies} lies,"
        f" {world.failed_commits} failed commits, {world.size.deaths} kills of the daemon,"
        f" {len(faults)} faults; transcript {world.wire.transcript}"
    )
