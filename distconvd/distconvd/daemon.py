"""The composition root: makes every part, runs them in the right order, and drains.

Starting: plugins, store, dispatcher, ledger, services, edge. Draining, in reverse: the edge stops
accepting and finishes what is in flight, services stop, the ledger commits what is left, the store
is folded and closed. A second signal ends at once; nothing acknowledged depends on a clean end.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from distconvd import clock
from distconvd.api.admission import Admission, LocalAccess
from distconvd.api.engines import EnginesApi
from distconvd.api.events import EventsApi
from distconvd.api.jobs import JobsApi
from distconvd.api.openapi import OpenApi
from distconvd.api.operations import OperationsApi, Readiness
from distconvd.archive import Archive, retire_for_ever
from distconvd.auth import gate
from distconvd.config import Config
from distconvd.disk import REAL_DISK
from distconvd.dispatch import Dispatcher, Instant
from distconvd.dispatch.clock import tick
from distconvd.edge.app import App
from distconvd.edge.http import Route
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.listeners import open_listeners
from distconvd.edge.router import Router
from distconvd.edge.server import Listener, Server, serve
from distconvd.errors import CommitFailed, ConfigError, StoreError
from distconvd.hookspecs import Service
from distconvd.ledger import Ledger
from distconvd.metrics import Metrics
from distconvd.plugins import Context, Plugins
from distconvd.policy import Policy
from distconvd.push import PushApi
from distconvd.store import Store
from distconvd.teller import Teller

log = logging.getLogger("distconvd.daemon")

T = TypeVar("T")

TICK_S = 0.2
DEFAULT_POLICY = "size-aware"


@dataclass
class Parts:
    """The parts of one daemon, wired; made by `assemble`."""

    config: Config
    store: Store
    dispatcher: Dispatcher
    teller: Teller
    ledger: Ledger
    archive: Archive | None
    push: PushApi
    app: App
    routes: list[Route]
    """The whole route table, the plugins' routes last."""
    services: list[tuple[str, Service]]
    is_draining: bool = False


async def assemble(
    config: Config,
    plugins: Plugins,
    *,
    store: Store | None = None,
    now: Callable[[], Instant] = clock.now,
) -> Parts:
    """Load the store and wire all parts; nothing runs yet.

    Args:
        config: the whole configuration.
        plugins: loaded plugins.
        store: used instead of the configured one (tests).
        now: the clock.

    Raises: `ConfigError` for what is not there or does not fit, `StoreError` from loading.
    """
    context = Context(config)
    policy, fallback = _policies(config, plugins, context)
    if store is None:
        registrar = plugins.collect("distconvd_register_stores", "store")
        store = _made("store", config.store, registrar.pick(config.store), context)
    snapshot = await store.load()
    try:
        dispatcher = Dispatcher(config.dispatch, policy, fallback, now(), snapshot)
        await _make_durable(store, dispatcher)
        return _wire(config, plugins, context, store, dispatcher, now)
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.aclose()
        raise


async def _make_durable(store: Store, dispatcher: Dispatcher) -> None:
    """Store the records that had to be rewritten on loading."""
    try:
        if dispatcher.adopted:
            await store.commit(dispatcher.adopted)
    except OSError as error:
        raise StoreError(f"the state was read but cannot be written: {error}") from error
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
    now: Callable[[], Instant],
) -> Parts:
    """Connect all parts round a dispatcher that has its state."""
    # Numbers of events begin at the present, so that those of an earlier run are older than any.
    teller = Teller(first_number=now().wall_ms * 1000)
    for name, listener in plugins.implementations("distconvd_event"):
        teller.add_listener(name, listener)
    metrics = Metrics(dispatcher, teller)
    ledger = Ledger(dispatcher, store, teller.tell, now, metrics.observe_commit)
    reviews = plugins.implementations("distconvd_review_submission")
    archive = Archive(config.archive_path, REAL_DISK) if config.archive_path else None
    admission = Admission(ledger, config.source_schemes, reviews, archive)
    push = PushApi(ledger)
    teller.add_listener("push", push.on_event)
    metrics.count_websockets(lambda: len(push.sessions))
    parts = Parts(config, store, dispatcher, teller, ledger, archive, push, _no_app(), [], [])
    started_s = now().mono_s
    parts.routes = [
        *OperationsApi(
            ledger,
            metrics,
            plugins.listing(),
            lambda: _readiness(parts),
            lambda: now().mono_s - started_s,
        ).routes(),
        *JobsApi(ledger, teller, admission, archive).routes(),
        *EnginesApi(ledger, teller).routes(),
        *push.routes(),
        *EventsApi(teller).routes(),
        *OpenApi(lambda: parts.routes).routes(),
    ]
    _add_plugin_routes(parts.routes, plugins, context)
    authenticators = plugins.collect("distconvd_register_authenticators", "authenticator")
    make_authenticator = authenticators.pick(config.authenticator)
    authenticator = _made("authenticator", config.authenticator, make_authenticator, context)
    parts.app = App(parts.routes, gate(authenticator), observers=[metrics.observe_request])
    access = LocalAccess(admission, ledger, archive)
    parts.services = _services(plugins, context, access, teller)
    return parts


async def run(
    parts: Parts,
    listeners: list[Listener],
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then drain; returns when everything is closed."""
    try:
        async with trio.open_nursery() as core:
            await core.start(parts.ledger.run)
            async with trio.open_nursery() as outer:
                outer.start_soon(_tick_for_ever, parts.ledger)
                if parts.archive is not None:
                    outer.start_soon(retire_for_ever, parts.ledger, parts.archive)
                for name, service in parts.services:
                    await outer.start(_run_service, name, service)
                async with trio.open_nursery() as front:
                    limits = _limits(parts.config)
                    edge: Server = await front.start(serve, listeners, parts.app, limits)
                    task_status.started()
                    await stop.wait()
                    log.info("draining: no new connections; requests in flight are finished")
                    parts.is_draining = True
                    parts.push.drain()
                    await edge.drain(parts.config.drain_s)
                outer.cancel_scope.cancel()
            parts.ledger.close()
    finally:
        with trio.CancelScope(shield=True):
            await parts.store.aclose()
    log.info("stopped")


async def listen(config: Config) -> list[Listener]:
    """Open the configured listeners; raises `ConfigError` that says what to do."""
    try:
        return list(await open_listeners(config.bind_host, config.port))
    except OSError as error:
        raise ConfigError(str(error.strerror or error), exit_code=1) from error


def _no_app() -> App:
    def refuse(request: Any, route: Route) -> Any:
        raise RuntimeError("not wired yet")

    return App([], refuse)


def _policies(config: Config, plugins: Plugins, context: Context) -> tuple[Policy, Policy]:
    registrar = plugins.collect("distconvd_register_policies", "policy")
    fallback = _made("policy", DEFAULT_POLICY, registrar.pick(DEFAULT_POLICY), context)
    if config.policy == DEFAULT_POLICY:
        return fallback, fallback
    chosen = _made("policy", config.policy, registrar.pick(config.policy), context)
    return chosen, fallback


def _made(kind: str, name: str, make: Callable[..., T], *arguments: Any) -> T:
    """Return what a plugin makes; whatever it raises stops the start with its name."""
    try:
        return make(*arguments)
    except (ConfigError, StoreError):
        raise
    except Exception as error:
        raise ConfigError(f"the {kind} {name!r} cannot be made: {error!r}") from error


def _add_plugin_routes(routes: list[Route], plugins: Plugins, context: Context) -> None:
    """Append the plugins' routes; raises `ConfigError` for a path that is taken or malformed."""
    registrar = plugins.collect("distconvd_register_routes", "set of routes")
    owners = {_shape(route): "distconvd" for route in routes}
    for name, make in registrar.items():
        for route in _made("set of routes", name, make, context):
            owner = owners.setdefault(_shape(route), name)
            if owner != name:
                raise ConfigError(
                    f"{route.method} {route.pattern} of the set of routes {name!r} is taken by"
                    f" {owner!r}; remove one of them"
                )
            routes.append(route)
    try:
        Router(routes)
    except ValueError as error:
        raise ConfigError(f"a plugin's route cannot be served: {error}") from error


def _shape(route: Route) -> tuple[str, str]:
    """Return what makes two routes the same: names of captures do not count."""
    return route.method, re.sub(r"\{[^}.]*", "{", route.pattern).rstrip("/")


def _services(
    plugins: Plugins, context: Context, access: LocalAccess, teller: Teller
) -> list[tuple[str, Service]]:
    registrar = plugins.collect("distconvd_register_services", "service")
    made = [
        (name, _made("service", name, make, context, access)) for name, make in registrar.items()
    ]
    services = [(name, service) for name, service in made if service is not None]
    for name, service in services:
        listener = getattr(service, "on_event", None)
        if listener is not None:
            teller.add_listener(name, listener)
    return services


async def _run_service(name: str, service: Service, *, task_status: trio.TaskStatus[None]) -> None:
    log.info("service %s starts", name)
    await service.run(task_status=task_status)


async def _tick_for_ever(ledger: Ledger) -> None:
    """Let time pass for the dispatcher: leases, delays, silent engines."""
    while True:
        try:
            await ledger.execute(tick)
        except CommitFailed as error:
            log.warning("what became due could not be stored and is tried again: %s", error)
        await trio.sleep(TICK_S)


def _readiness(parts: Parts) -> Readiness:
    causes: dict[str, str] = {}
    if parts.is_draining:
        causes["draining"] = "the daemon is stopping"
    if parts.ledger.failure is not None:
        causes["store"] = f"the last commit failed: {parts.ledger.failure}"
    return Readiness(causes)


def _limits(config: Config) -> EdgeLimits:
    edge = config.edge
    return EdgeLimits(
        connections_max=edge.connections_max,
        body_bytes_max=edge.body_bytes_max,
        head_timeout_s=edge.head_timeout_s,
        body_timeout_s=edge.body_timeout_s,
        idle_timeout_s=edge.idle_timeout_s,
        send_timeout_s=edge.send_timeout_s,
    )
