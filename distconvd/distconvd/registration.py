"""Make and check what plugins have registered, and connect it to the parts of the daemon.

What cannot be made, or is not what its hook asks for, raises a `ConfigError` that names the plugin and
stops the start. Later, `HookWatch` times the calls into it, and `isolated` and `run_service` confine its
failures.
"""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import cast

from distconvd.api.admission import LocalAccess
from distconvd.core.event_bus import EventBus
from distconvd.dispatch import Event
from distconvd.edge.http import Principal, Route
from distconvd.edge.router import Router
from distconvd.errors import ConfigError, DistconvError
from distconvd.hookspecs import Service
from distconvd.model import Submission
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.plugin_host.metrics import Collect
from distconvd.plugin_host.routes import isolated
from distconvd.plugin_host.watchdog import HookWatch

log = logging.getLogger("distconvd.plugins")

Review = Callable[[Submission, str], Submission | None]


def check_settings(plugins: Plugins, context: Context) -> None:
    """Check every table that a plugin declares; raises `ConfigError` that names the field."""
    for name, kind in plugins.settings_types().items():
        context.settings(name, kind)


def report_unread(context: Context) -> None:
    """Log the tables that no plugin reads: a plugin that is not loaded must not stop a farm, but a
    misspelt name must not go unnoticed either."""
    for name in context.unread_tables():
        log.warning("no loaded plugin reads [plugin.%s] of the configuration", name)


class Registrations:
    """What the loaded plugins have registered. Raises `ConfigError` as the module says."""

    def __init__(self, plugins: Plugins, context: Context, watch: HookWatch) -> None:
        self._plugins = plugins
        self._context = context
        self._watch = watch

    def subscribe(self, event_bus: EventBus) -> None:
        """Publish events to the plugins that implement the hook."""
        for name, listener in self._plugins.implementations("distconvd_event"):
            notify_listener = partial(_notify_listener, listener, self._context)
            event_bus.add_listener(
                name, self._watch.timed(name, "distconvd_event", notify_listener)
            )

    def reviews(self) -> list[tuple[str, Review]]:
        """Return the functions that review submissions, each with its plugin's name."""
        hook = "distconvd_review_submission"
        return [
            (name, self._watch.timed(name, hook, partial(_review, review, self._context)))
            for name, review in self._plugins.implementations(hook)
        ]

    def metrics(self, event_bus: EventBus) -> list[tuple[str, Collect]]:
        """Return what collects metrics, with names; those with `on_event` are subscribed."""
        found: list[tuple[str, Collect]] = []
        kind = "set of metrics"
        registrar = self._plugins.collect("distconvd_register_metrics", kind)
        for name, make in registrar.items():
            registered = build_checked(kind, name, make, self._context, owner=registrar.owner(name))
            found.append((name, self._watch.timed(name, "collect", registered.collect)))
            self._subscribe(name, registered, event_bus)
        return found

    def add_routes(self, routes: list[Route]) -> None:
        """Append the plugins' routes; a path that is taken or malformed raises `ConfigError`."""
        kind = "set of routes"
        registrar = self._plugins.collect("distconvd_register_routes", kind)
        owners = {_shape(route): "distconvd" for route in routes}
        for name, make in registrar.items():
            plugin = registrar.owner(name)
            registered = build_checked(kind, name, make, self._context, owner=plugin)
            for route in _routes_of(name, plugin, registered):
                _check_route(route, name, plugin)
                owner = owners.setdefault(_shape(route), name)
                if owner != name:
                    raise ConfigError(
                        f"{route.method} {route.pattern} of the set of routes {name!r} is taken by"
                        f" {owner!r} (the set belongs to plugin {plugin!r}); remove one of them"
                    )
                routes.append(isolated(route, plugin))

    def services(self, access: LocalAccess, event_bus: EventBus) -> list[tuple[str, str, Service]]:
        """Return the services with their names and plugins; those with `on_event` are subscribed."""
        registrar = self._plugins.collect("distconvd_register_services", "service")
        found: list[tuple[str, str, Service]] = []
        for name, make in registrar.items():
            owner = registrar.owner(name)
            service = build_checked("service", name, make, self._context, access, owner=owner)
            if service is not None:
                found.append((name, owner, service))
        for name, _, service in found:
            self._subscribe(name, service, event_bus)
        return found

    def _subscribe(self, name: str, registered: object, event_bus: EventBus) -> None:
        """Publish events to what a plugin has registered, if that has `on_event`."""
        listener: Callable[[Event], None] | None = getattr(registered, "on_event", None)
        if callable(listener):
            event_bus.add_listener(name, self._watch.timed(name, "on_event", listener))


class NamedAuthenticator:
    """An authenticator whose failures are logged with its plugin's name."""

    def __init__(
        self, name: str, plugin: str, authenticate: Callable[[str | None, str], Principal]
    ) -> None:
        self._subject = f"the authenticator {name} of plugin {plugin}"
        self._authenticate = authenticate

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """See `distconvd.auth.Authenticator`."""
        try:
            answer: object = self._authenticate(key, peer)
            if not isinstance(answer, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
                raise TypeError(f"it returned {answer!r:.80} instead of a Principal")
            return answer
        except DistconvError:
            raise
        except Exception as error:
            raise RuntimeError(f"{self._subject} failed: {error!r}") from error


def _notify_listener(
    listener: Callable[[Event, Context], None], context: Context, event: Event
) -> None:
    listener(event, context)


def _review(
    review: Callable[[Submission, str, Context], Submission | None],
    context: Context,
    submission: Submission,
    caller: str,
) -> Submission | None:
    return review(submission, caller, context)


def _routes_of(name: str, plugin: str, answer: object) -> list[Route]:
    """Return what a routes factory returned, if it is a list of routes."""
    if isinstance(answer, list):
        routes = cast("list[object]", answer)
        if all(isinstance(route, Route) for route in routes):
            return cast("list[Route]", routes)
    raise ConfigError(
        f"the set of routes {name!r} of plugin {plugin!r} is {answer!r}; expected a list of Route"
    )


def _check_route(route: Route, name: str, plugin: str) -> None:
    try:
        Router([route])
    except (AttributeError, TypeError, ValueError) as error:  # its fields may be of any type, too
        raise ConfigError(
            f"{route.method} {route.pattern} of the set of routes {name!r} of plugin {plugin!r}"
            f" cannot be served: {error}"
        ) from error


def _shape(route: Route) -> tuple[str, str]:
    """Return what makes two routes equal: names of captures do not count."""
    return route.method, re.sub(r"\{[^}.]*", "{", route.pattern).rstrip("/")
