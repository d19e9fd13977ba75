"""Runs a command at events: an argument list, no shell, the event as JSON on its standard input.

    [plugin.exec]
    command = ["/usr/local/bin/told", "--from", "distconv"]
    events = ["job.completed", "job.failed"]

Words of the command are passed as they are: nothing of an event is ever part of one, so nothing has to
be quoted. `DISTCONV_EVENT`, `DISTCONV_JOB_ID`, `DISTCONV_ENGINE_ID`, `DISTCONV_ATTEMPT` and
`DISTCONV_REASON` say what fits into a word; of the daemon's own environment only what `INHERITED` names
comes along, as the rest may hold its key.

Bounded: so many commands at once, so many waiting events (then the newest is dropped and counted), so
much time, after which the whole process group is killed. What fails is logged with the end of what it
printed. What waits when the daemon ends is not run: for what must not be missed use `webhook`.
"""

import logging
import os
import signal
import subprocess
from typing import Annotated, NoReturn

import msgspec
import trio

from distconv_plugins.shared.events import ENDS, event_json, ids_of, kinds_of
from distconvd import hookimpl
from distconvd.hookspecs import (
    DaemonAccess,
    PluginContext,
    Registrar,
    ServiceFactory,
    SettingsRegistrar,
)
from distconvd.plugin_api import Event

NAME = "exec"
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
TAIL_BYTES = 2000

log = logging.getLogger("distconvd.exec")


class ExecSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.exec]`; without a command nothing is run."""

    command: list[str] = []
    """The program and its arguments."""
    events: list[str] = msgspec.field(default_factory=lambda: list(ENDS))
    """Kinds of event, or patterns such as `engine.*`."""
    concurrency: Annotated[int, msgspec.Meta(gt=0)] = 2
    """Commands that run at once."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """A command that takes longer is killed, with all that it started."""
    queue_max: Annotated[int, msgspec.Meta(gt=0)] = 1000
    """Events that may wait for their command."""


class Exec:
    """The service; see the module."""

    def __init__(self, settings: ExecSettings) -> None:
        self._settings = settings
        self._kinds = kinds_of(settings.events, NAME)
        self._send, self._receive = trio.open_memory_channel[Event](settings.queue_max)
        self.dropped = 0
        """Events for which no command was run, as too many waited."""

    def on_event(self, event: Event) -> None:
        """Let an event wait for its command."""
        if event.kind not in self._kinds:
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
            if self.dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
                log.error("events come faster than commands end: %d dropped", self.dropped)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._settings.concurrency):
                nursery.start_soon(self._work_forever)
            task_status.started()

    async def _work_forever(self) -> NoReturn:
        while True:
            event = await self._receive.receive()
            with trio.move_on_after(self._settings.timeout_s) as patience:
                await self._run_command(event)
            if patience.cancelled_caught:
                log.error(
                    "the command took over %g s for %s", self._settings.timeout_s, event.kind,
                    extra=ids_of(event),
                )  # fmt: skip

    async def _run_command(self, event: Event) -> None:
        tail, process = b"", None
        try:
            async with trio.open_nursery() as nursery:
                process = await nursery.start(self._start_command, event)
                async for piece in process.stderr:
                    tail = (tail + piece)[-TAIL_BYTES:]
        except* OSError as errors:
            log.error("the command cannot be run: %s", errors.exceptions[0], extra=ids_of(event))
        if process is not None and process.returncode:
            said = tail.decode("utf-8", "replace").strip()
            log.error(
                "the command ended with %d for %s: %s", process.returncode, event.kind, said,
                extra=ids_of(event),
            )  # fmt: skip

    async def _start_command(
        self, event: Event, *, task_status: trio.TaskStatus[trio.Process]
    ) -> None:
        await trio.run_process(
            self._settings.command,
            stdin=event_json(event),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            env=environment_of(event),
            start_new_session=True,
            deliver_cancel=_kill_group,
            task_status=task_status,
        )


def environment_of(event: Event) -> dict[str, str]:
    """Return what a command finds in its environment."""
    event_fields = {
        "EVENT": event.kind,
        "JOB_ID": event.job_id,
        "ENGINE_ID": event.engine_id,
        "ATTEMPT": event.attempt,
        "REASON": event.reason,
    }
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # A NUL cannot be in an environment, and a reason is what an engine wrote.
    return inherited | {
        f"DISTCONV_{name}": str(value).replace("\0", " ")
        for name, value in event_fields.items()
        if value is not None
    }


async def _kill_group(process: trio.Process) -> None:
    """Kill the command and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Offer the service."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.exec]`."""
    registrar.add(NAME, ExecSettings)


def _make(context: PluginContext, daemon: DaemonAccess) -> Exec | None:
    settings = context.settings(NAME, ExecSettings)
    return Exec(settings) if settings.command else None
