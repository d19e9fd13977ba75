"""Run a command for each event, without a shell, with the event as JSON on its stdin.

    [plugin.exec]
    command = ["/usr/local/bin/notify", "--from", "distconv"]
    events = ["job.completed", "job.failed"]

The command's words are passed unchanged: nothing of an event is ever part of one, so nothing has
to be quoted. `DISTCONV_EVENT`, `DISTCONV_JOB_ID`, `DISTCONV_ENGINE_ID`, `DISTCONV_ATTEMPT` and
`DISTCONV_REASON` give the parts that fit into a word. Of the daemon's own environment the command
inherits only what `INHERITED` names, because the rest may contain the daemon's key.

Bounded are the commands that run at the same time, the waiting events (beyond the bound the newest
is dropped and counted), and a command's time, after which its whole process group is killed. A
failure is logged with the end of the command's stderr. Events that still wait when the daemon ends
are lost: use `webhook` for those that must not be.
"""

import logging
import os
import signal
import subprocess
from typing import Annotated, NoReturn

import msgspec
import trio

from distconv_plugins.shared.events import ENDS, event_json, ids_of, kinds_of
from distconv_plugins.shared.os_errors import describe_error
from distconvd import hookimpl
from distconvd.hookspecs import (
    DaemonAccess,
    PluginContext,
    Registrar,
    ServiceFactory,
    SettingsRegistrar,
)
from distconvd.model import mask_urls
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
    """Commands that run at the same time."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """A command that takes longer is killed, with all processes that it started."""
    queue_max: Annotated[int, msgspec.Meta(gt=0)] = 1000
    """Events that may wait for their command."""


class Exec:
    """The service; see the module."""

    def __init__(self, settings: ExecSettings) -> None:
        self._settings = settings
        self._kinds = kinds_of(settings.events, NAME)
        self._send, self._receive = trio.open_memory_channel[Event](settings.queue_max)
        self.dropped = 0
        """Events for which no command was run, because too many waited."""

    def on_event(self, event: Event) -> None:
        """Queue an event for its command."""
        if event.kind not in self._kinds:
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
            if self.dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
                log.error(
                    "events arrive faster than the command can process them: %d dropped",
                    self.dropped,
                )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._settings.concurrency):
                nursery.start_soon(self._work_forever)
            task_status.started()

    async def _work_forever(self) -> NoReturn:
        while True:
            event = await self._receive.receive()
            with trio.move_on_after(self._settings.timeout_s) as scope:
                await self._run_command(event)
            if scope.cancelled_caught:
                log.error(
                    "the command took over %g s for %s and was killed",
                    self._settings.timeout_s, event.kind,
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
            reason = describe_error(errors.exceptions[0])
            log.error("the command cannot be run: %s", reason, extra=ids_of(event))
        if process is not None and process.returncode:
            printed = tail.decode("utf-8", "replace").strip()
            log.error(
                "the command exited with %d for %s: %s", process.returncode, event.kind, printed,
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
    """Return the environment of an event's command."""
    event_fields = {
        "EVENT": event.kind,
        "JOB_ID": event.job_id,
        "ENGINE_ID": event.engine_id,
        "ATTEMPT": event.attempt,
        "REASON": None if event.reason is None else mask_urls(event.reason),
    }
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # An environment cannot contain NUL, but a reason may: an engine wrote it.
    return inherited | {
        f"DISTCONV_{name}": str(value).replace("\0", " ")
        for name, value in event_fields.items()
        if value is not None
    }


async def _kill_group(process: trio.Process) -> None:
    """Kill the command and all processes that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Register the service."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.exec]`."""
    registrar.add(NAME, ExecSettings)


def _make(context: PluginContext, daemon: DaemonAccess) -> Exec | None:
    settings = context.settings(NAME, ExecSettings)
    return Exec(settings) if settings.command else None
