"""Build all parts of the daemon, run them in the right order, and drain: composition root.

Starting: plugins, store, dispatcher, ledger, services, edge. The command `distconvd` lets the edge
listen before all that, with an app that answers "starting" (see `api.starting`). Draining, in reverse:
the edge stops accepting and finishes the requests in flight, services stop, the ledger commits what is
left, the store is checkpointed and closed. A second signal ends the process immediately; nothing
acknowledged depends on a clean end.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from distconvd.api.admission import Admission, LocalAccess
from distconvd.api.engines import EnginesApi
from distconvd.api.events import EventsApi
from distconvd.api.jobs import JobsApi
from distconvd.api.openapi.document import OpenApi
from distconvd.api.operations import OperationsApi, Readiness
from distconvd.auth import Authenticator, gate
from distconvd.auth_keys.wrong_keys import RateLimit
from distconvd.config import Config
from distconvd.core.archive import Archive, retire_forever
from distconvd.core.event_bus import EventBus
from distconvd.core.event_log import log_event
from distconvd.core.ledger import Ledger
from distconvd.core.metrics import Metrics
from distconvd.disk import REAL_DISK
from distconvd.dispatch import Dispatcher, Instant
from distconvd.dispatch.expiry import expire_due, extend_leases
from distconvd.edge.app import App
from distconvd.edge.cors import Cors
from distconvd.edge.http import Route
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.request_head import TrustedProxies
from distconvd.edge.server import Listener, Server, serve
from distconvd.errors import CommitFailed, ConfigError, StoreError
from distconvd.faults import reraise_if_cancelled
from distconvd.hookspecs import Service
from distconvd.host import current_time
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.plugin_host.services import run_service
from distconvd.plugin_host.watchdog import HookWatch
from distconvd.policy import Policy
from distconvd.push import PushApi
from distconvd.registration import NamedAuthenticator, Registrations, check_settings, report_unread
from distconvd.store import Damage, DamageReporter, Snapshot, Store

log = logging.getLogger("distconvd.daemon")

EXPIRE_S = 0.2
SUSPENDED_S = 2.0
"""When the whole daemon was suspended for longer, leases are extended by that time."""
FIRST_PROBE_S = 1.0
"""How long the start waits to know whether anything can be committed; a store may hang."""
STORE_S_MIN = 2.0
"""The least time for the store's last commit, however long the drain took."""
CLOSE_S_MAX = 60.0
"""The time for the store to checkpoint and close."""
DEFAULT_POLICY = "size-aware"
LOADED_INLINE_MAX = 10_000
"""Up to so many stored jobs are loaded in this thread; more are loaded in another, while the edge
answers."""


@dataclass
class Parts:
    """The parts of one daemon, wired; made by `assemble`."""

    config: Config
    store: Store
    dispatcher: Dispatcher
    event_bus: EventBus
    ledger: Ledger
    archive: Archive | None
    push: PushApi
    watch: HookWatch
    app: App
    routes: list[Route]
    """The whole route table, the plugins' routes last."""
    services: list[tuple[str, Service]]
    reloads: list[tuple[str, Callable[[], object]]]
    """What to call on SIGHUP, by name."""
    service_failures: Counter[str]
    """How often each service failed after its start."""
    damage: Sequence[Damage] = ()
    """Damage of the store that nobody has acknowledged."""
    is_draining: bool = False

    owners: dict[str, str] = field(default_factory=dict[str, str])
    """Name of each service to the plugin that registered it."""
    last_resort: Callable[[], None] = lambda: None
    """Called when a commit is given up: makes sure that the process ends, even if the commit's thread
    does not."""

    def abandon(self) -> None:
        """Give up a commit that does not end; what was acknowledged is durable without it."""
        log.error(
            "the store %s has not finished a commit in %.0f s; the commit is abandoned, and changes"
            " that were not acknowledged may be lost",
            self.config.store, self.ledger.commit_watch.running_s,
        )  # fmt: skip
        self.last_resort()
        self.ledger.abandon()

    def reload(self) -> None:
        """Do what SIGHUP asks for: let each part reread its files. One that cannot keeps what it has,
        and the others are reloaded all the same."""
        for name, reload_hook in self.reloads:
            try:
                reload_hook()
            except (ConfigError, OSError) as error:  # the operator's mistake: it says what is wrong
                log.error(
                    "%s could not be reloaded and goes on as before: %s",
                    name,
                    _describe_error(error),
                )
            except BaseException as error:
                reraise_if_cancelled(error)
                log.exception("%s could not be reloaded and goes on as before", name)
            else:
                log.info("%s was reloaded", name)


def _describe_error(error: ConfigError | OSError) -> str:
    return str((error.strerror if isinstance(error, OSError) else None) or error)


def check_choices(config: Config, plugins: Plugins) -> None:
    """Raise `ConfigError` for a choice that does not exist, before anything is opened."""
    check_apart(config)
    for hook, kind, name in (
        ("distconvd_register_stores", "store", config.store),
        ("distconvd_register_policies", "policy", config.policy),
        ("distconvd_register_authenticators", "authenticator", config.authenticator),
    ):
        plugins.collect(hook, kind).pick(name)
    check_settings(plugins, Context(config))


def check_apart(config: Config) -> None:
    """Raise `ConfigError` when state and keys share a file: the state would overwrite the keys."""
    if config.key_file is None or config.store == "memory":
        return
    if Path(config.key_file).resolve() == Path(config.state_file).resolve():
        raise ConfigError(
            f"state_file and key_file are both {config.key_file}: the state would overwrite the keys;"
            " name another --state-file"
        )


async def assemble(
    config: Config,
    plugins: Plugins,
    *,
    store: Store | None = None,
    now: Callable[[], Instant] = current_time.now,
) -> Parts:
    """Load the store and wire all parts; nothing runs yet.

    Args:
        config: the whole configuration.
        plugins: loaded plugins.
        store: used instead of the configured one (tests).
        now: the clock.

    Raises: `ConfigError` for what does not exist or does not fit, `StoreError` from loading.
    """
    context = Context(config, plugins.collect("distconvd_register_policies", "policy"))
    check_settings(plugins, context)
    fallback = context.policy(DEFAULT_POLICY)
    policy = fallback if config.policy == DEFAULT_POLICY else context.policy(config.policy)
    watch = HookWatch(config.hook_slow_ms)
    if store is None:
        registrar = plugins.collect("distconvd_register_stores", "store")
        store = build_checked(
            "store",
            config.store,
            registrar.pick(config.store),
            context,
            owner=registrar.owner(config.store),
        )
    snapshot = await _load(config.store, store)
    try:
        timed = watch.timed_policy(config.policy, policy)
        dispatcher = await _dispatcher(config, timed, fallback, now(), snapshot)
        await _make_durable(store, dispatcher)
        parts = _wire(config, plugins, context, store, dispatcher, watch, now)
        report_unread(context)
        return parts
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.aclose()
        raise


async def _load(name: str, store: Store) -> Snapshot:
    """Return the store's contents; anything else that it raises or returns stops the start, with the
    store's name."""
    try:
        snapshot: object = await store.load()
    except (StoreError, ConfigError):
        raise
    except BaseException as error:
        reraise_if_cancelled(error)
        reason = _describe_error(error) if isinstance(error, OSError) else repr(error)
        raise StoreError(f"the store {name!r} cannot be read: {reason}") from error
    if not isinstance(snapshot, Snapshot):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
        raise StoreError(f"the store {name!r} returned {snapshot!r:.80} instead of a Snapshot")
    return snapshot


async def _dispatcher(
    config: Config, policy: Policy, fallback: Policy, now: Instant, snapshot: Snapshot
) -> Dispatcher:
    """Make the dispatcher from the stored records; nothing else uses them meanwhile."""
    if len(snapshot.jobs) <= LOADED_INLINE_MAX:
        return Dispatcher(config.dispatch, policy, fallback, now, snapshot)
    return await trio.to_thread.run_sync(
        Dispatcher, config.dispatch, policy, fallback, now, snapshot
    )


async def _make_durable(store: Store, dispatcher: Dispatcher) -> None:
    """Store the records that had to be rewritten on loading."""
    try:
        if dispatcher.normalized:
            await store.commit(dispatcher.normalized)
    except OSError as error:
        reason = _describe_error(error)
        raise StoreError(
            f"the state was read but cannot be written: {reason}; free space or repair the disk"
        ) from error
    log.info(
        "state loaded: %d jobs, %d engines",
        len(dispatcher.state.jobs),
        len(dispatcher.state.engines),
    )


def _wire(
    config: Config,
    plugins: Plugins,
    context: Context,
    store: Store,
    dispatcher: Dispatcher,
    watch: HookWatch,
    now: Callable[[], Instant],
) -> Parts:
    """Connect all parts to a dispatcher that has loaded its state."""
    # Event numbers start at the present time, so that they are higher than those of earlier runs.
    event_bus = EventBus(first_number=now().wall_ms * 1000)
    registrations = Registrations(plugins, context, watch)
    registrations.subscribe(event_bus)
    service_failures: Counter[str] = Counter()
    metrics = Metrics(
        dispatcher, event_bus, watch.slow, registrations.metrics(event_bus), service_failures
    )
    ledger = Ledger(dispatcher, store, event_bus.publish, now, metrics.observe_commit)
    archive = Archive(config.archive_path, REAL_DISK) if config.archive_path else None
    admission = Admission(ledger, config.source_schemes, registrations.reviews(), archive)
    push = PushApi(ledger)
    event_bus.add_listener("push", push.on_event)
    event_bus.add_listener("log", log_event)
    metrics.count_websockets(lambda: len(push.sessions))
    parts = Parts(
        config, store, dispatcher, event_bus, ledger, archive, push, watch, _no_app(), [], [], [],
        service_failures,
    )  # fmt: skip
    metrics.show_not_ready(lambda: bool(_readiness(parts).causes))
    parts.damage = tuple(store.damage) if isinstance(store, DamageReporter) else ()
    metrics.show_store_damage(len(parts.damage))
    started_s = now().mono_s
    parts.routes = [
        *OperationsApi(
            ledger,
            metrics,
            plugins.listing(),
            lambda: _readiness(parts),
            lambda: now().mono_s - started_s,
        ).routes(),
        *JobsApi(ledger, event_bus, admission, archive).routes(),
        *EnginesApi(ledger, event_bus).routes(),
        *push.routes(),
        *EventsApi(event_bus).routes(),
        *OpenApi(lambda: parts.routes).routes(),
    ]
    registrations.add_routes(parts.routes)
    access = LocalAccess(admission, ledger, archive)
    for name, owner, service in registrations.services(access, event_bus):
        parts.services.append((name, service))
        parts.owners[name] = owner
    authenticator = _authenticator(parts, plugins, context)
    names = [place.host for place in config.listen_addresses if place.host]
    cors = Cors(config.cors_origins, parts.routes, names)
    limit = _rate_limit(config)
    let_in = gate(authenticator, metrics.observe_wrong_key, rate_limit=limit, cors=cors)
    proxies = TrustedProxies(config.trusted_proxies)
    parts.app = App(
        parts.routes, let_in, observers=[metrics.observe_request], cors=cors, proxies=proxies
    )
    return parts


def _authenticator(parts: Parts, plugins: Plugins, context: Context) -> Authenticator:
    """Make the authenticator, and register its `run` and `reload` where it has them."""
    name = parts.config.authenticator
    registrar = plugins.collect("distconvd_register_authenticators", "authenticator")
    authenticator = build_checked(
        "authenticator", name, registrar.pick(name), context, owner=registrar.owner(name)
    )
    if callable(getattr(authenticator, "run", None)):
        parts.services.append((name, authenticator))
        parts.owners[name] = registrar.owner(name)
    reload = getattr(authenticator, "reload", None)
    if callable(reload):
        parts.reloads.append((name, reload))
    authenticate = parts.watch.timed(name, "authenticate", authenticator.authenticate)
    return NamedAuthenticator(name, registrar.owner(name), authenticate)


async def run(
    parts: Parts,
    listeners: list[Listener],
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then drain; returns when everything is closed."""

    async def begin(nursery: trio.Nursery) -> Server:
        limits = edge_limits(parts.config)
        server: Server = await nursery.start(serve, listeners, parts.app, limits)
        return server

    await _run(parts, begin, stop, task_status)


async def run_behind(
    parts: Parts,
    server: Server,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do as `run` does, with a server that listens already and is drained here."""

    async def begin(nursery: trio.Nursery) -> Server:
        server.answer_with(parts.app)
        return server

    await _run(parts, begin, stop, task_status)


Begin = Callable[[trio.Nursery], Awaitable[Server]]


async def _run(
    parts: Parts, begin: Begin, stop: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    try:
        with parts.watch.alarm():
            await _run_all(parts, begin, stop, task_status)
    finally:
        await _close(parts)
    log.info("stopped")


async def _close(parts: Parts) -> None:
    """Close the store. All that was acknowledged is durable by now, so a failure to close, or a close
    that does not end, is only logged."""
    limit_s = STORE_S_MIN if parts.ledger.is_abandoned else CLOSE_S_MAX
    with trio.move_on_after(limit_s, shield=True) as scope:
        try:
            await parts.store.aclose()
        except BaseException as error:
            reraise_if_cancelled(error)
            log.exception("the store %s failed while it was closed", parts.config.store)
    if scope.cancelled_caught:
        log.error("the store %s did not close within %.0f s", parts.config.store, limit_s)


async def _run_all(
    parts: Parts, begin: Begin, stop: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    """Run every part, each in a nursery inside that of the parts it needs; the module gives the
    order."""
    async with trio.open_nursery() as core:
        await core.start(parts.ledger.run)
        async with trio.open_nursery() as outer:
            outer.start_soon(_expire_forever, parts.ledger)
            outer.start_soon(parts.watch.beat_forever)
            outer.start_soon(parts.ledger.commit_watch.run)
            if parts.archive is not None:
                outer.start_soon(retire_forever, parts.ledger, parts.archive)
            for name, service in parts.services:
                owner = parts.owners.get(name, name)
                failures = parts.service_failures
                await outer.start(run_service, name, service, failures, owner, parts.watch)
            parts.ledger.want_probe()
            with trio.move_on_after(FIRST_PROBE_S):
                await parts.ledger.probed.wait()
            async with trio.open_nursery() as front:
                edge = await begin(front)
                task_status.started()
                await stop.wait()
                log.info("draining: no new connections; requests in flight are finished")
                parts.is_draining = True
                parts.push.drain()
                deadline_s = trio.current_time() + parts.config.drain_s
                await edge.drain(parts.config.drain_s)
            outer.cancel_scope.cancel()
        parts.ledger.close()
        await _wait_for_the_last_commit(parts, deadline_s)


async def _wait_for_the_last_commit(parts: Parts, deadline_s: float) -> None:
    """Return when all is committed; a commit that does not end in time is given up."""
    began_s = trio.current_time()
    with trio.move_on_at(max(deadline_s, began_s + STORE_S_MIN)):
        await parts.ledger.stopped.wait()
    if not parts.ledger.stopped.is_set():
        parts.abandon()


def _no_app() -> App:
    def refuse(request: Any, route: Route) -> Any:
        raise RuntimeError("the daemon has not started yet")

    return App([], refuse)


async def _expire_forever(ledger: Ledger) -> None:
    """Expire what is due, again and again: leases, delays, silent engines."""
    while True:
        try:
            await ledger.execute(expire_due)
        except CommitFailed as error:
            # The ledger has logged the outage, and logs its end, too.
            log.debug("expiring what is due could not be committed and is tried again: %s", error)
        slept_from_s = trio.current_time()
        await trio.sleep(EXPIRE_S)
        suspended_s = trio.current_time() - slept_from_s - EXPIRE_S
        if suspended_s > SUSPENDED_S:
            log.warning("the process was suspended for %.0f s; leases are extended", suspended_s)
            ledger.execute_nowait(extend_leases, suspended_s)


def _readiness(parts: Parts) -> Readiness:
    causes: dict[str, str] = {}
    if parts.is_draining:
        causes["draining"] = "the daemon is stopping"
    if parts.ledger.failure is not None:
        causes["store"] = f"the last commit failed: {parts.ledger.failure}"
    elif parts.ledger.commit_watch.is_long:
        causes["store"] = f"a commit has taken {parts.ledger.commit_watch.running_s:.0f} s"
    return Readiness(causes, _warnings(parts))


def _warnings(parts: Parts) -> dict[str, str]:
    """Return what a person should look at; without names of jobs, since `/readyz` needs no key."""
    if not parts.damage:
        return {}
    touched = len({name for damage in parts.damage for name in damage.touched})
    return {
        "store": f"the store was damaged ({len(parts.damage)}, of which {touched} records are older than "
        "what was acknowledged, or missing): the log and `distconvd audit` name them, and "
        "`distconvd audit --repair` acknowledges it"
    }


def _rate_limit(config: Config) -> RateLimit | None:
    if config.rate_limit_per_s == 0:
        return None
    return RateLimit(config.rate_limit_per_s, config.rate_limit_burst, trio.current_time)


def edge_limits(config: Config) -> EdgeLimits:
    """Return the limits of the edge that a configuration asks for."""
    edge = config.edge
    return EdgeLimits(
        connections_max=edge.connections_max,
        body_bytes_max=edge.body_bytes_max,
        head_timeout_s=edge.head_timeout_s,
        body_timeout_s=edge.body_timeout_s,
        idle_timeout_s=edge.idle_timeout_s,
        send_timeout_s=edge.send_timeout_s,
    )
