"""Find, check, register and list plugins; every error message names the plugin.

An installed plugin (entry-point group `distconvd`) that cannot be loaded is left out with an error
line, so that one broken package does not stop a farm; one named by `--plugin` stops the start.
"""

import importlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

import msgspec
import pluggy

from distconvd import hookspecs
from distconvd.config import Config, check_table
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import ConfigError, StoreError
from distconvd.faults import reraise_if_cancelled
from distconvd.hookspecs import HOOK_VERSION, PROJECT, PolicyFactory, S
from distconvd.policy import Policy

log = logging.getLogger("distconvd.plugins")

T = TypeVar("T")

GROUP = "distconvd"


class LoadedPlugin(msgspec.Struct, frozen=True):
    """One plugin, as `GET /plugins` and `distconvd plugins` list it."""

    name: str
    origin: str
    version: str | None
    hooks: list[str]


class NamedRegistrar(Generic[T]):
    """Collects what plugins register; see `hookspecs.Registrar`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._registered: dict[str, T] = {}
        self._from: dict[str, str] = {}
        self.current = ""
        """Name of the plugin whose hook is being called."""

    def add(self, name: str, registered: T) -> None:
        """Register something; raises `ConfigError` for an invalid or duplicate name."""
        given: object = name
        if not isinstance(given, str) or not given.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may give anything
            raise ConfigError(
                f"plugin {self.current!r} registers a {self._kind} under {name!r}; expected a name"
            )
        if name in self._registered:
            raise ConfigError(
                f"plugin {self.current!r} registers the {self._kind} {name!r}, which plugin"
                f" {self._from[name]!r} has registered already; remove one of them"
            )
        self._registered[name] = registered
        self._from[name] = self.current

    def pick(self, name: str) -> T:
        """Return what is registered under a name; raises `ConfigError` that lists the names."""
        if name not in self._registered:
            known = ", ".join(sorted(self._registered)) or "none"
            raise ConfigError(f"there is no {self._kind} {name!r}; installed: {known}")
        return self._registered[name]

    def owner(self, name: str) -> str:
        """Return the name of the plugin that registered it."""
        return self._from[name]

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield (name, what is registered under it)."""
        yield from self._registered.items()


class Plugins:
    """All loaded plugins.

    Args:
        wanted: files or modules named by `--plugin`.

    Raises `ConfigError` for a wanted plugin that cannot be loaded, and for a misspelt hook.
    """

    def __init__(self, wanted: list[str]) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._origins: dict[str, tuple[str, Distribution | None]] = {}
        """Where each plugin comes from: the name given, and the distribution it was installed with."""
        self._registered: dict[str, NamedRegistrar[Any]] = {}
        """The results of registration hooks, by hook."""
        self._is_traced = os.environ.get("DISTCONV_TRACE_PLUGINS", "0") not in ("", "0")
        for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
            self._load_installed(point)
        for name in wanted:
            self._load_wanted(name)

    def listing(self) -> list[LoadedPlugin]:
        """Return all loaded plugins, sorted by name."""
        found: list[LoadedPlugin] = []
        version_of = cache(_version)  # most come from one distribution
        for name, plugin in self._manager.list_name_plugin():
            callers = self._manager.get_hookcallers(plugin) or []
            origin, distribution = self._origins[name]
            hooks = sorted(caller.name for caller in callers)
            found.append(LoadedPlugin(name, origin, version_of(distribution), hooks))
        return sorted(found, key=lambda p: p.name)

    def collect(self, hook: str, kind: str) -> NamedRegistrar[Any]:
        """Return what all plugins register through one hook; each plugin is called once."""
        if hook not in self._registered:
            self._registered[hook] = self._collect(hook, NamedRegistrar[Any](kind))
        return self._registered[hook]

    def _collect(self, hook: str, registrar: NamedRegistrar[Any]) -> NamedRegistrar[Any]:
        caller = getattr(self._manager.hook, hook)
        for implementation in reversed(caller.get_hookimpls()):
            registrar.current = implementation.plugin_name
            try:
                self._caller_of(hook, implementation)(registrar)
            except ConfigError:
                raise
            except BaseException as error:
                reraise_if_cancelled(error)
                raise ConfigError(
                    f"plugin {implementation.plugin_name!r} failed in {hook}: {error!r}"
                ) from error
        return registrar

    def settings_types(self) -> dict[str, type[msgspec.Struct]]:
        """Return the types that plugins declare for their tables `[plugin.NAME]`, by name."""
        declared = self.collect("distconvd_register_settings", "settings table")
        for name, kind in declared.items():
            if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
                raise ConfigError(
                    f"plugin {declared.owner(name)!r} declares [plugin.{name}] as {kind!r}; expected a"
                    " msgspec.Struct type"
                )
        return dict(declared.items())

    def implementations(self, hook: str) -> list[tuple[str, Any]]:
        """Return (plugin name, function) for each implementation of a hook, in calling order."""
        caller = getattr(self._manager.hook, hook)
        return [(i.plugin_name, self._caller_of(hook, i)) for i in reversed(caller.get_hookimpls())]

    def _caller_of(self, hook: str, implementation: pluggy.HookImpl) -> Callable[..., Any]:
        """Return a function that calls one implementation as pluggy would: with the hook's arguments
        that it names, and traced if tracing is on.

        Pluggy's own call of all implementations is not used: one that fails must not affect others.
        """
        names = getattr(self._manager.hook, hook).spec.argnames
        wanted = [names.index(name) for name in implementation.argnames]
        name, function = implementation.plugin_name, implementation.function
        if list(implementation.argnames) == list(names) and not self._is_traced:
            return cast("Callable[..., Any]", function)

        def call(*arguments: Any) -> Any:
            answer = function(*(arguments[at] for at in wanted))
            if self._is_traced:
                log.info("trace %s of plugin %s answered %r", hook, name, answer)
            return answer

        return call

    def _load_installed(self, point: EntryPoint) -> None:
        try:
            self._register(point.name, point.load(), point.value, point.dist)
        except ConfigError as error:
            log.error("installed plugin left out: %s", error)
        except BaseException as error:
            reraise_if_cancelled(error)
            log.exception("installed plugin %r (%s) left out: %r", point.name, point.value, error)

    def _load_wanted(self, name: str) -> None:
        try:
            module = _import_file(Path(name)) if _is_file(name) else importlib.import_module(name)
        except BaseException as error:
            reraise_if_cancelled(error)
            raise ConfigError(f"--plugin {name}: cannot be loaded: {error!r}") from error
        known_as = Path(name).stem if _is_file(name) else name
        self._register(known_as, module, name, None)
        if not self._manager.get_hookcallers(module):
            log.warning(
                "--plugin %s implements no hook, so it does nothing; are its functions marked with"
                " @hookimpl?",
                name,
            )

    def _register(
        self, name: str, module: ModuleType, origin: str, distribution: Distribution | None
    ) -> None:
        needs = getattr(module, "DISTCONVD_HOOK_VERSION", HOOK_VERSION)
        if not isinstance(needs, int):
            raise ConfigError(
                f"plugin {name!r}: DISTCONVD_HOOK_VERSION is {needs!r}; expected a whole number"
            )
        if needs > HOOK_VERSION:
            raise ConfigError(
                f"plugin {name!r} needs hook version {needs}; this distconvd has {HOOK_VERSION}:"
                " upgrade distconv, or install an older version of the plugin"
            )
        try:
            self._manager.register(module, name)
            self._manager.check_pending()
            self._reject_uncallable_hooks(module)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name) and self._manager.get_plugin(name) is module:
                self._manager.unregister(module)
            raise ConfigError(f"plugin {name!r} is rejected: {error}") from error
        self._origins[name] = (origin, distribution)

    def _reject_uncallable_hooks(self, module: ModuleType) -> None:
        """Raise for hook wrappers and async hooks: hooks are called one by one, so there is no call to
        wrap, and the calls are synchronous, so an async hook would never run."""
        for caller in self._manager.get_hookcallers(module) or []:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not module:
                    continue
                why = None
                if implementation.wrapper or implementation.hookwrapper:
                    why = "is a hook wrapper, which distconvd does not call"
                elif _waits(implementation.function):
                    why = "is async or a generator; hooks are plain functions (def, no yield)"
                if why is not None:
                    raise pluggy.PluginValidationError(module, f"{caller.name} {why}")


class Context:
    """What a plugin may know of the daemon: `hookspecs.PluginContext`.

    Args:
        config: the whole configuration.
        policies: the registered policies, for `policy` to make.
        disk: the file system for stores.
    """

    def __init__(
        self,
        config: Config,
        policies: NamedRegistrar[PolicyFactory] | None = None,
        *,
        disk: Disk = REAL_DISK,
    ) -> None:
        self._config = config
        self._disk = disk
        self.disk_was_taken = False
        self._policies = policies or NamedRegistrar[PolicyFactory]("policy")
        self._being_made: list[str] = []
        self._settings: dict[tuple[str, type[msgspec.Struct]], msgspec.Struct] = {}
        self.read: set[str] = set()
        """Names of the settings tables that a plugin has asked for."""
        self.state_file = Path(config.state_file)
        self.api_key = config.api_key
        self.key_file = Path(config.key_file) if config.key_file else None
        self.media_dir = config.media_path
        self.spool_dir = Path(config.spool_dir) if config.spool_dir else None

    @property
    def disk(self) -> Disk:
        """See `hookspecs.PluginContext.disk`; sets `disk_was_taken`."""
        self.disk_was_taken = True
        return self._disk

    def settings(self, name: str, kind: type[S]) -> S:
        """See `hookspecs.PluginContext.settings`."""
        self.read.add(name)
        known = self._settings.get((name, kind))
        if known is None:
            known = check_table(name, self._config.plugin.get(name, {}), kind)
            self._settings[name, kind] = known
        return cast("S", known)

    def policy(self, name: str) -> Policy:
        """See `hookspecs.PluginContext.policy`."""
        if name in self._being_made:
            circle = " -> ".join([*self._being_made, name])
            raise ConfigError(f"policies wrap each other in a circle: {circle}")
        self._being_made.append(name)
        try:
            make = self._policies.pick(name)
            return build_checked("policy", name, make, self, owner=self._policies.owner(name))
        finally:
            self._being_made.pop()

    def unread_tables(self) -> list[str]:
        """Return the tables of the configuration that no plugin has asked for."""
        return sorted(self._config.plugin.keys() - self.read)


_PROMISED = {
    "store": ("load", "commit", "aclose"),
    "policy": ("place",),
    "authenticator": ("authenticate",),
    "service": ("run",),
    "set of metrics": ("collect",),
}
"""Methods that an object of each kind must have."""
_NEVER_WAIT = ("place", "share", "authenticate", "reload", "on_event")
"""Methods that are called without `await` on any object that has them."""


def build_checked(kind: str, name: str, make: Callable[..., T], *arguments: Any, owner: str) -> T:
    """Return what a plugin's factory makes. If it raises, or its result lacks a method, the start stops
    with its name and that of `owner`, the plugin that registered it."""
    subject = f"the {kind} {name!r} of plugin {owner!r}"
    try:
        thing = make(*arguments)
    except (ConfigError, StoreError):
        raise
    except BaseException as error:
        reraise_if_cancelled(error)
        raise ConfigError(f"{subject} cannot be made: {error!r}") from error
    if thing is None and kind == "service":
        return thing  # not in this configuration
    if inspect.iscoroutine(thing):
        thing.close()
        raise ConfigError(f"{subject} is made by an async function; use a plain one (def)")
    missing = [m for m in _PROMISED.get(kind, ()) if not callable(getattr(thing, m, None))]
    if missing:
        raise ConfigError(f"{subject} is {thing!r}, which has no {' and no '.join(missing)}")
    waiting = [m for m in _NEVER_WAIT if _waits(getattr(thing, m, None))]
    if waiting:
        raise ConfigError(
            f"{subject} has an async {' and '.join(waiting)}; make it a plain function"
            " (def), as it is called without await"
        )
    return thing


def _version(distribution: Distribution | None) -> str | None:
    """Return a distribution's version; slow, since it parses the whole METADATA."""
    return distribution.version if distribution else None


def _waits(function: object) -> bool:
    """Whether a call would only return something that has to be awaited or iterated."""
    kinds = (
        inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction,
    )  # fmt: skip
    return any(is_kind(function) for is_kind in kinds)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"distconvd_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no Python file at {path}")
    module = importlib.util.module_from_spec(spec)
    # As an import would do: type hints of its classes are looked up in `sys.modules`.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
