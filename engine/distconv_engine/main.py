"""Run the command `distconv-engine`: read the configuration, find ffmpeg, run the agent.

Exit codes: 0 drained cleanly, 2 wrong usage, 78 wrong configuration (EX_CONFIG of sysexits.h), also
for an engine_id that another engine uses too.
"""

import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import httpx
import trio

from distconv_engine import __version__
from distconv_engine.agent import Agent
from distconv_engine.config import Config, check_engine_id, default_engine_id, load_config
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconv_engine.files import write_durably
from distconv_engine.host.notify import Notifier
from distconv_engine.logs import Log, setup_logs
from distconv_engine.status import EngineStatus
from distconv_engine.transfer.destination import directory_of
from distconv_engine.transfer.guard import check_hosts, open_guarded_client

HOSTNAME_CHARS = 255


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine until it is stopped; returns its exit code."""
    try:
        loaded = load_config(
            sys.argv[1:] if arguments is None else arguments, os.environ, __version__
        )
        config = loaded.config
        setup_logs(config.log_level, config.log_format)
        check_hosts(config)
        tools = find_tools(config.ffmpeg, hardware=config.hardware == "prefer")
        with prepare(config):
            engine_id = config.engine_id or kept_engine_id(config.work_dir)
            _run(config, engine_id, tools)
    except ConfigError as error:
        sys.stderr.write(f"distconv-engine: {error}\n")
        return error.exit_code
    return 0


def _run(config: Config, engine_id: str, tools: Tools) -> None:
    try:
        trio.run(serve, config, engine_id, tools)
    except* ConfigError as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


def prepare(config: Config) -> IO[str]:
    """Create the directories and lock the work directory; returns the lock, to be kept open."""
    try:
        config.work_dir.mkdir(parents=True, exist_ok=True)
        if config.output and not config.output.startswith(("http://", "https://")):
            directory_of(config.output).mkdir(parents=True, exist_ok=True)
        lock = (config.work_dir / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"Cannot use {error.filename}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"Another engine works in {config.work_dir}. Give each its own --work-dir."
        ) from error
    return lock


def kept_engine_id(work_dir: Path) -> str:
    """Return the engine's own name, which stays the same at each start."""
    path = work_dir / "engine_id"
    try:
        known = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        known = ""
    if not known:
        known = default_engine_id(secrets.token_hex(3))
        write_durably(path, known.encode())
    check_engine_id(known, f"The engine's name in {path}")
    return known


async def serve(config: Config, engine_id: str, tools: Tools) -> None:
    """Run one agent until it has drained; the first SIGTERM or SIGINT drains, the second quits."""
    log = Log(engine_id=engine_id)
    log.info("engine starts", server=config.server, ffmpeg=tools.ffmpeg, version=tools.version)
    engine_status = EngineStatus(config, engine_id, socket.gethostname()[:HOSTNAME_CHARS])
    manager = Notifier(os.environ, log)
    async with (
        httpx.AsyncClient(follow_redirects=True) as client,
        open_guarded_client(config) as guarded,
    ):
        agent = Agent(engine_status, tools, client, guarded, log)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.watch)
            nursery.start_soon(_notify_when_verified, agent, manager)
            await nursery.start(_handle_signals, agent, manager, config.drain_s)
            await agent.run()
            nursery.cancel_scope.cancel()
    log.info("engine ended")


async def _notify_when_verified(agent: Agent, manager: Notifier) -> None:
    """Notify systemd once the encoders are verified, whether or not the daemon is available."""
    await agent.encoders_verified.wait()
    manager.ready()


async def _handle_signals(
    agent: Agent,
    manager: Notifier,
    drain_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        draining = False
        async for _ in signals:
            if draining:
                agent.quit()
            else:
                manager.stopping(drain_s)
                agent.drain()
            draining = True


if __name__ == "__main__":
    sys.exit(main())
