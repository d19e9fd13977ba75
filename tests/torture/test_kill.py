"""Kill the daemon (SIGKILL) under load: nothing acknowledged is lost or done twice.

Short in the suite (`DISTCONV_TORTURE_KILLS` kills, 4 by default), long in `make torture`.
"""

import os
import random
import sys
from pathlib import Path

import pytest
import trio
from tests.torture.actors import Books, Engine, Submitter
from tests.torture.audit import audit
from tests.torture.victim import Victim
from tests.torture.wire import Gone, Wire

KILLS = int(os.environ.get("DISTCONV_TORTURE_KILLS", "4"))
SEED = int(os.environ.get("DISTCONV_TORTURE_SEED", "1"))
CLIENTS = 32
ENGINES = 50
JOBS_A_CLIENT = max(6, KILLS * 2)
SETTINGS: dict[str, object] = {
    "dispatch.lease_s": 20,
    "dispatch.engine_timeout_s": 20,
    "dispatch.start_grace_s": 20,
    "dispatch.pickup_s": 1,
    "dispatch.retry_backoff_s": 0.2,
    "dispatch.quarantine_after": 0,
}


@pytest.mark.e2e
@pytest.mark.parametrize("store", ["json", "spool"])
@pytest.mark.alone
async def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(
    store: str, tmp_path: Path
) -> None:
    """32 clients, 50 engines, a daemon that is killed again and again, an exact audit."""
    books, deaths = Books(), list[float]()
    victim = Victim(tmp_path, store, SETTINGS)
    try:
        await victim.start()
        with trio.fail_after(60 + 20 * KILLS):
            faults_of_crashes = await _storm(victim, books, deaths)
        faults = await audit(books, victim.port)
        faults += await victim.audit()
        assert await victim.stop() == 0
        faults += await victim.audit()
    finally:
        victim.slay()
    report = (
        f"torture {store} seed {SEED}: {victim.kills} kills, {len(books.submitted)} jobs"
        f" acknowledged, {len(books.assignments)} attempts, {len(books.completed)} completed,"
        f" {len(books.cancelled)} cancelled, {books.spanning} attempts lived through a kill,"
        f" {len(faults)} faults"
    )
    sys.stderr.write(f"\n{report}\n")
    assert faults_of_crashes + faults == []
    assert victim.kills == KILLS
    assert len(books.submitted) == CLIENTS * JOBS_A_CLIENT
    assert books.spanning > 0


async def _storm(victim: Victim, books: Books, deaths: list[float]) -> list[str]:
    """Run clients and engines through all kills, and until every job has ended; return what an
    audit finds in what each kill left on disk."""
    async with trio.open_nursery() as outer:
        engines = [
            Engine(f"engine-{n}", victim.port, books, SEED * 1000 + n, deaths)
            for n in range(ENGINES)
        ]
        for engine in engines:
            outer.start_soon(engine.run)
        async with trio.open_nursery() as clients:
            for number in range(CLIENTS):
                client = Submitter(f"c{number}", victim.port, books, SEED + number, JOBS_A_CLIENT)
                clients.start_soon(client.run)
            faults = await _kill_again_and_again(victim, deaths)
        await _until_all_have_ended(victim.port)
        while any(engine.is_at_work for engine in engines):
            await trio.sleep(0.05)
        outer.cancel_scope.cancel()
    return faults


async def _kill_again_and_again(victim: Victim, deaths: list[float]) -> list[str]:
    dice = random.Random(SEED)
    faults: list[str] = []
    for _ in range(KILLS):
        await trio.sleep(dice.uniform(0.05, 1.5))
        await victim.kill()
        deaths.append(trio.current_time())
        faults += await victim.audit()
        await victim.start()
    return faults


async def _until_all_have_ended(port: int) -> None:
    wire = Wire(port)
    while True:
        try:
            _, status = await wire.call("GET", "/status")
        except Gone:
            continue
        assert isinstance(status, dict)
        if not status["jobs"]["pending"] and not status["jobs"]["assigned"]:
            wire.hang_up()
            return
        await trio.sleep(0.2)
