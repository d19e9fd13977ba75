"""Specify every hook: what a plugin may do, when it is called, and what its answer means.

A plugin is a module (or a file given with `--plugin`) with functions of these names, marked with
`@distconvd.hookimpl`. Hooks are synchronous and must not wait; what has to run or wait lives in an
object that a hook gives to a registrar. See docs/plugins.md for worked examples.

What raising does: at registration, the plugin is rejected and the message names it; in
`distconvd_review_submission`, an error of `distconvd.errors` is answered with its status (a
`BadRequest` rejects the job) and anything else fails that request; in `distconvd_event`, it is logged
and counted, and the other plugins receive the event all the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import pluggy
import trio
from prometheus_client.registry import Collector

from distconvd.auth import Authenticator
from distconvd.disk import Disk
from distconvd.dispatch import Event
from distconvd.edge.http import Route
from distconvd.model import Job, Submission
from distconvd.policy import Policy
from distconvd.store import Store

PROJECT = "distconvd"
HOOK_VERSION = 1
"""A plugin may set `DISTCONVD_HOOK_VERSION = n`; one for newer hooks than these is rejected."""

hookspec = pluggy.HookspecMarker(PROJECT)


S = TypeVar("S", bound=msgspec.Struct)
T_contra = TypeVar("T_contra", contravariant=True)


class PluginContext(Protocol):
    """What a plugin may know of the daemon."""

    @property
    def state_file(self) -> Path:
        """Where state is kept: `--state-file`, a file or a directory, as the store chooses."""
        ...

    @property
    def disk(self) -> Disk:
        """The file system for a store's files. `distconvd audit` and `export` provide one that writes
        nothing, and only open stores that use it."""
        ...

    @property
    def api_key(self) -> str | None:
        """The one key of `--api-key`, if there is one."""
        ...

    @property
    def key_file(self) -> Path | None:
        """The key file of `--key-file`, if there is one."""
        ...

    @property
    def media_dir(self) -> Path:
        """Where the bundled media store keeps files."""
        ...

    @property
    def spool_dir(self) -> Path | None:
        """The spool directory, if one is served."""
        ...

    def settings(self, name: str, kind: type[S]) -> S:
        """Return the table `[plugin.NAME]` of the configuration, checked against `kind`.

        Raises `ConfigError` that names the wrong field.
        """
        ...

    def policy(self, name: str) -> Policy:
        """Make the policy of that name, for a policy that wraps another. Call it in a factory.

        Raises `ConfigError` if there is no such policy, or if it would wrap itself.
        """
        ...


class DaemonAccess(Protocol):
    """What a background service may do: the same as a client, without the network."""

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """Submit a job given as a JSON object; returns once it is durable.

        Raises `CallerError` for a bad job, `Unavailable` for "try again later".
        """
        ...

    async def job(self, job_id: str) -> Job:
        """Return a job; raises `NotFound`."""
        ...


class Service(Protocol):
    """Something that runs as long as the daemon does.

    It may also have `check()`, which `distconvd check` calls in a thread: it raises `ConfigError` if the
    service could not start, and changes nothing.
    """

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled; call `task_status.started()` once ready, within a minute.

        If it raises before that, the daemon does not start, unless it raises `OSError` (a full disk, an
        absent network). That, and anything that it raises later, is logged and counted, and `run` is
        called again, after 1 s at first and then after growing delays. If it returns, its work is done.
        """
        ...


class Registrar(Protocol[T_contra]):
    """Registers things of one kind under a name; a name that is taken is rejected."""

    def add(self, name: str, registered: T_contra) -> None:
        """Register something under `name`."""
        ...


StoreFactory = Callable[[PluginContext], Store]
PolicyFactory = Callable[[PluginContext], Policy]
AuthenticatorFactory = Callable[[PluginContext], Authenticator]
ServiceFactory = Callable[[PluginContext, DaemonAccess], Service | None]
RoutesFactory = Callable[[PluginContext], list[Route]]
MetricsFactory = Callable[[PluginContext], Collector]
SettingsRegistrar = Registrar[type[msgspec.Struct]]


@hookspec
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare the type of the table `[plugin.NAME]`: `registrar.add(NAME, Struct)`. Called at start;
    the table is checked against it, and `distconvd config` shows it with its defaults."""


@hookspec
def distconvd_register_stores(registrar: Registrar[StoreFactory]) -> None:
    """Register stores; `--store NAME` picks one, and only that one is made. Called at start."""


@hookspec
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register scheduling policies; `--policy NAME` picks one, and only that one is made, with those
    that it asks its context for. Called at start."""


@hookspec
def distconvd_register_authenticators(registrar: Registrar[AuthenticatorFactory]) -> None:
    """Register ways to identify callers; `--auth NAME` picks one. Called at start."""


@hookspec
def distconvd_register_routes(registrar: Registrar[RoutesFactory]) -> None:
    """Register the plugin's own HTTP routes; all are served. Called at start, after the store has
    been loaded; a path that is taken stops the start with a message that names both."""


@hookspec
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Register background services; all are run. A factory may return None if the service is not
    wanted in this configuration. Called at start."""


@hookspec
def distconvd_register_metrics(registrar: Registrar[MetricsFactory]) -> None:
    """Register the plugin's own metrics; `GET /metrics` shows all. Called at start.

    A factory makes a collector of prometheus-client: an object with `collect()`, such as a
    `CollectorRegistry` of its own. If it also has `on_event(event)`, it receives events, as
    `distconvd_event` does. When `collect` raises, these metrics are left out; that is logged and
    counted.
    """


@hookspec
def distconvd_review_submission(
    submission: Submission, caller: str, context: PluginContext
) -> Submission | None:
    """Review a submission before it is admitted. Called for each submission, plugin by plugin, but not
    for one that repeats an `Idempotency-Key`: that gets the earlier answer.

    Return None to leave it as it is, or another `Submission` (the next plugin sees that one);
    raise `distconvd.errors.BadRequest` to reject it. `caller` is the name of the key used, or
    `local` for the spool and for hot folders.
    """


@hookspec
def distconvd_event(event: Event, context: PluginContext) -> None:
    """Receive an event, after it is durable. Must return immediately: queue the work elsewhere."""
