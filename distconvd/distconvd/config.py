"""Merge flags over `DISTCONV_*` over a TOML file over defaults; record each value's origin.

A key is written the same everywhere: `--state-file`, `DISTCONV_STATE_FILE`, `state_file = …`. Settings
in a table (`[dispatch]`, `[edge]`, `[plugin.NAME]`) are set in the file or by
`--set dispatch.lease_s=30`.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

from distconvd.dispatch import DispatchSettings
from distconvd.edge.bind_address import ListenAddress, parse_listen_address
from distconvd.edge.cors import ANY, parse_origin
from distconvd.edge.request_head import TrustedProxies
from distconvd.errors import ConfigError
from distconvd.host.logs import LEVELS
from distconvd.host.secret_file import read_secret
from distconvd.model import (
    SETTING_MAX,
    NotNegative,
    Positive,
    PositiveCount,
    TypeFault,
    explain,
    sentence,
)

ENV_PREFIX = "DISTCONV_"
_MASK = "********"
_SECRET = re.compile(r"(?:^|[._-])(?:key|secret|token|password)s?$", re.IGNORECASE)
"""Settings whose last word is one of these are masked, including the settings of plugins."""
_USERINFO = re.compile(r'://(?:[^/"\\]|\\.)*@')
"""In JSON: the user part of a URL, which usually has a password."""
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, extra=sentence("must be from 1 to 65535"))]
"""0, which tests use, is a free port that the system chooses."""


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Table `[edge]`: limits on what one client may use. See docs/protocol.md, Limits."""

    connections_max: PositiveCount = 4096
    body_bytes_max: PositiveCount = 1_048_576
    head_timeout_s: Positive = 10.0
    body_timeout_s: Positive = 30.0
    idle_timeout_s: Positive = 60.0
    send_timeout_s: Positive = 30.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's whole configuration."""

    host: str | None = None
    """Address to listen on. Default: loopback without a key, every address with one."""
    port: Port = 8080
    listen: list[str] = []
    """Where to listen instead of `host` and `port`: `HOST:PORT`, `[IPV6]:PORT`, `unix:/PATH`,
    `systemd` for the sockets that it passes."""
    tls_certificate: str | None = None
    """PEM file with the whole chain. With it every TCP listener speaks TLS only."""
    tls_key: str | None = None
    """Private key of the certificate. Default: it is in the certificate's file."""
    tls_client_ca: str | None = None
    """Clients must show a certificate of one of these authorities."""
    api_key: str | None = None
    api_key_file: str | None = None
    """A file with that key, such as a systemd credential; `api_key` takes precedence."""
    key_file: str | None = None
    """A file with many keys, each with its roles; see `distconvd keys`."""
    state_file: str = "dispatch_server_state.json"
    store: str = "json"
    policy: str = "size-aware"
    auth: str | None = None
    """Authenticator. Default: `key-file` with a key file, `api-key` with a key, else `none`."""
    plugins: list[str] = []
    """Files or modules to load in addition to the installed plugins."""
    log_level: str = "INFO"
    log_format: Literal["text", "json"] = "text"
    media_dir: str | None = None
    """The media store's directory. Default: `distconv-media` next to the state file."""
    archive_dir: str | None = None
    """Where retired jobs are archived. Default: `STATE_FILE.archive`."""
    spool_dir: str | None = None
    """A spool directory to take jobs from. Default: none."""
    source_schemes: list[str] = msgspec.field(default_factory=lambda: ["http", "https", "file"])
    """Schemes that a `source_url` may have."""
    cors_origins: list[str] = []
    """Origins of web pages that may call from a browser, or `*`. Default: none."""
    trusted_proxies: list[str] = []
    """Proxies whose `X-Forwarded-For` names the client: addresses, networks, or `unix`."""
    rate_limit_per_s: NotNegative = 0.0
    """Requests per second that one key may make in the long run; 0: no limit."""
    rate_limit_burst: PositiveCount = 100
    """Requests that one key may make in a burst."""
    drain_s: NotNegative = 30.0
    """How long SIGTERM waits for requests in flight, in seconds."""
    hook_slow_ms: Positive = 50.0
    """A call into a plugin that takes longer is logged and counted: every request waits for it."""
    dispatch: DispatchSettings = DispatchSettings()
    edge: EdgeSettings = EdgeSettings()
    plugin: dict[str, dict[str, Any]] = {}

    @property
    def bind_host(self) -> str:
        """The address to listen on."""
        return self.host or ("0.0.0.0" if self.authenticator != "none" else "127.0.0.1")  # noqa: S104 - only with a key

    @property
    def listen_addresses(self) -> list[ListenAddress]:
        """The addresses to listen on; raises `ValueError` for an invalid one."""
        if self.listen:
            return [parse_listen_address(text) for text in self.listen]
        return [ListenAddress(self.bind_host, self.port)]

    @property
    def authenticator(self) -> str:
        """The authenticator's name."""
        if self.auth:
            return self.auth
        if self.key_file:
            return "key-file"
        return "api-key" if self.api_key else "none"

    @property
    def archive_path(self) -> Path | None:
        """The archive's directory; None with the memory store, from which no job is retired."""
        if self.archive_dir:
            return Path(self.archive_dir)
        return None if self.store == "memory" else Path(self.state_file + ".archive")

    @property
    def media_path(self) -> Path:
        """The media store's directory."""
        if self.media_dir:
            return Path(self.media_dir)
        return Path(self.state_file).parent / "distconv-media"


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where each of its values comes from."""

    config: Config
    origins: dict[str, str]
    """Dotted key to `default`, `file NAME`, `environment NAME` or `flag`."""


def load_config(
    flags: Mapping[str, Any], environ: Mapping[str, str], sets: list[str] | None = None
) -> Loaded:
    """Merge all sources; raises `ConfigError` that names the key and its origin.

    Args:
        flags: values given on the command line by key; `config` names the file.
        environ: the process's environment.
        sets: `KEY=VALUE` of `--set`, with dots for tables.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = flags.get("config") or environ.get(ENV_PREFIX + "CONFIG")
    if path is not None:
        _merge(values, origins, _read_file(Path(path)), f"file {path}")
    for key in Config.__struct_fields__:
        name = ENV_PREFIX + key.upper()
        if name in environ and key not in ("dispatch", "edge", "plugin"):
            given: Any = environ[name]
            if key in ("plugins", "source_schemes", "listen", "cors_origins", "trusted_proxies"):
                given = [part for part in given.split(",") if part]
            _merge(values, origins, {key: given}, f"environment {name}")
    for key, value in flags.items():
        if key != "config" and value is not None:
            _merge(values, origins, {key: value}, "flag")
    for text in sets or []:
        _merge(values, origins, _parse_set(text), "flag --set")
    _take_api_key(values, origins)
    return Loaded(_check(values, origins), origins)


def _take_api_key(values: dict[str, Any], origins: dict[str, str]) -> None:
    path = values.get("api_key_file")
    if isinstance(path, str) and path and values.get("api_key") is None:
        values["api_key"] = read_secret("api_key_file", Path(path))
        origins["api_key"] = f"file {path}"


def describe(
    loaded: Loaded, tables: Mapping[str, type[msgspec.Struct]] | None = None
) -> list[tuple[str, str, str]]:
    """Return (key, value, origin) of every setting, secrets masked.

    `tables` are the types of `[plugin.NAME]`; their defaults are shown, too. Settings in a table
    without a type are shown as they are. Raises `ConfigError` for an invalid value.
    """
    values = msgspec.to_builtins(loaded.config)
    for name, kind in (tables or {}).items():
        table = check_table(name, values["plugin"].get(name, {}), kind)
        values["plugin"][name] = msgspec.to_builtins(table)
    rows: list[tuple[str, str, str]] = []
    for key, value in _flatten(values).items():
        rows.append((key, _shown(key, value), loaded.origins.get(key, "default")))
    return rows


def _shown(key: str, value: object) -> str:
    if value and _SECRET.search(key):
        return _MASK
    return _USERINFO.sub(f"://{_MASK}@", msgspec.json.encode(value).decode())


S = TypeVar("S", bound=msgspec.Struct)


def check_table(name: str, table: Mapping[str, Any], kind: type[S]) -> S:
    """Return the table `[plugin.NAME]` as its type; raises `ConfigError` that names the field.

    A number that is not finite, or absurdly large, is rejected whatever the type allows.
    """
    try:
        checked = msgspec.convert(table, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"configuration of [plugin.{name}]: {_said(error, table, kind)}"
        ) from error
    _check_numbers(f"configuration of [plugin.{name}]:", checked)
    return checked


def _said(error: msgspec.ValidationError, table: Mapping[str, Any], kind: Any) -> str:
    """Return what is wrong with a plugin's table, with the value where a bound is exceeded."""
    fault = explain(error, kind)
    if fault.bound is None:
        return str(error)
    return _out_of_bounds(fault, table)


def _check_numbers(place: str, value: object) -> None:
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, float | int) and not abs(value) < SETTING_MAX:
        shown = value if isinstance(value, float) else "too long"
        raise ConfigError(f"{place} is {shown}; choose a number under {SETTING_MAX:g}")
    if isinstance(value, msgspec.Struct):
        inner = msgspec.structs.asdict(value).items()
    elif isinstance(value, dict):
        inner = cast("dict[object, object]", value).items()
    elif isinstance(value, list | tuple):
        inner = enumerate(cast("list[object]", value))
    for key, part in inner:
        _check_numbers(f"{place}{' ' if place.endswith(':') else '.'}{key}", part)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, or an endless integer
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set expects KEY=VALUE, not {text!r}")
    try:
        parsed: Any = msgspec.json.decode(value)
    except msgspec.DecodeError:
        parsed = value
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return cast("dict[str, Any]", parsed)


def _merge(
    values: dict[str, Any], origins: dict[str, str], layer: Mapping[str, Any], origin: str
) -> None:
    def flatten_into(into: dict[str, Any], new: Mapping[str, Any], prefix: str) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                flatten_into(into[key], cast("dict[str, Any]", value), f"{prefix}{key}.")
            else:
                into[key] = value
                for leaf in _flatten({key: value}):
                    origins[prefix + leaf] = origin

    flatten_into(values, layer, "")


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _check(values: dict[str, Any], origins: dict[str, str]) -> Config:
    try:
        config = msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(error, values, origins) from error
    if config.log_level.upper() not in LEVELS:
        raise ConfigError(f"log_level is {config.log_level!r}; choose one of {', '.join(LEVELS)}")
    if config.api_key is not None and not config.api_key.strip():
        raise ConfigError("api_key is empty; give a key, or leave it out to serve loopback only")
    _check_rate_limit(config)
    _check_edge(config)
    _check_origins(config)
    _check_exposure(config)
    return msgspec.structs.replace(config, log_level=config.log_level.upper())


def _wrong(
    error: msgspec.ValidationError, values: Mapping[str, Any], origins: dict[str, str]
) -> ConfigError:
    """Return the error for what msgspec says, with the key and the origin of its value."""
    fault = explain(error, Config)
    key, message = fault.field, fault.message
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        key = ".".join(part for part in (key, unknown.group(1)) if part)
        message = "this setting is not accepted"
    inside = (origin for at, origin in origins.items() if at == key or at.startswith(key + "."))
    origin = next(inside, None)
    where = f" (from {origin})" if key and origin else ""
    if fault.bound is not None:
        return ConfigError(_out_of_bounds(fault, values) + where)
    return ConfigError(f"configuration{' of ' + key if key else ''}{where}: {message}")


def _out_of_bounds(fault: TypeFault, values: Mapping[str, Any]) -> str:
    """Return which setting is out of its bounds, with its value where that is one word."""
    value: Any = values
    for part in fault.field.split("."):
        value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
    if isinstance(value, int | float):  # not as JSON, which has no NaN
        return f"{fault.field} is {value}; it {fault.bound}"
    if isinstance(value, str):
        return f"{fault.field} is {_shown(fault.field, value)}; it {fault.bound}"
    return f"{fault.field} {fault.bound}"


def _check_rate_limit(config: Config) -> None:
    if 0 < config.rate_limit_per_s < 0.001:
        raise ConfigError(
            f"rate_limit_per_s is {config.rate_limit_per_s}; it must be at least 0.001, or 0 for no"
            " limit"
        )


def _check_edge(config: Config) -> None:
    try:
        _ = config.listen_addresses
    except ValueError as error:
        raise ConfigError(f"listen: {error}") from error
    try:
        TrustedProxies(config.trusted_proxies)
    except ValueError as error:
        raise ConfigError(f"trusted_proxies: {error}") from error
    if config.tls_certificate is None and (config.tls_key or config.tls_client_ca):
        raise ConfigError("tls_key and tls_client_ca need tls_certificate")


def _check_origins(config: Config) -> None:
    try:
        origins = [parse_origin(text) for text in config.cors_origins]
    except ValueError as error:
        raise ConfigError(f"cors_origins: {error}") from error
    if ANY in origins and config.authenticator == "none":
        raise ConfigError(
            "cors_origins is * and there is no key: any web page that somebody here opens could"
            " submit and cancel jobs. Name the origins, or give --api-key KEY or --key-file FILE."
        )


def _check_exposure(config: Config) -> None:
    """Refuse to listen on a public address without a key."""
    if config.authenticator != "none":
        return
    exposed = [place for place in config.listen_addresses if not place.is_local]
    if not exposed:
        return
    at = exposed[0].host
    raise ConfigError(
        f"refusing to listen on {at} without a key: anybody could submit and take"
        " jobs. Give --api-key KEY (or DISTCONV_API_KEY) or --key-file FILE, or listen on 127.0.0.1."
    )
