"""Find the daemon's address and the key.

Flags win over the environment (`DISTCONV_SERVER`, `DISTCONV_API_KEY`), the environment over the
file `distconv/config.toml` under `$XDG_CONFIG_HOME` (default `~/.config`), the file over the
default. An empty value counts as not given. The file has two keys; any other is an error, so that
a misspelt one is not silently ignored:

    server = "http://dispatch.example.org:8080"
    api_key = "…"
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from distconv_client.api import DEFAULT_SERVER
from distconv_client.errors import BadInput
from distconv_client.key import checked_key

FILE_KEYS = ("server", "api_key")
PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command needs to reach the daemon."""

    server: str
    api_key: str | None


def load_settings(
    server: str | None = None,
    api_key: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings; `server` and `api_key` come from the flags.

    Raises `BadInput` for an unreadable file, an invalid address, or a key that cannot be sent.
    """
    given = (server, environ.get("DISTCONV_SERVER")), (api_key, environ.get("DISTCONV_API_KEY"))
    # A broken file does not matter when everything is given by flags or environment.
    needs_file = not all(any(values) for values in given)
    path = config_path(environ)
    stored = read_file(path) if needs_file else {}
    found_server, found_key = (
        next((value for value in (*values, stored.get(name)) if value), None)
        for values, name in zip(given, FILE_KEYS, strict=True)
    )
    if found_key is not None:
        origins = zip(
            (*given[1], found_key), ("--api-key", "DISTCONV_API_KEY", str(path)), strict=True
        )
        checked_key(found_key, next(origin for value, origin in origins if value))
    return Settings(checked_server(found_server or DEFAULT_SERVER), found_key)


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the configuration file, which need not exist."""
    home = environ.get("XDG_CONFIG_HOME")
    base = Path(home) if home else Path(environ.get("HOME") or Path.home()) / ".config"
    return base / "distconv" / "config.toml"


def read_file(path: Path) -> dict[str, str]:
    """Return the contents of the configuration file; empty if it does not exist."""
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"Cannot read {path}: {reason}.", hint="Correct the file or remove it."
        ) from error
    return {name: checked_value(path, name, value) for name, value in stored.items()}


def checked_value(path: Path, name: str, value: Any) -> str:
    """Return the value of one key of the file; raises `BadInput` for a wrong one."""
    if name not in FILE_KEYS:
        raise BadInput(
            f"{path}: {name!r} is not accepted.", hint=f"Accepted keys: {', '.join(FILE_KEYS)}."
        )
    if not isinstance(value, str):
        raise BadInput(f"{path}: {name} must be a string.", hint=f'Write {name} = "…".')
    return value


def checked_server(server: str) -> str:
    """Return `server` if it is a base URL; raises `BadInput` for anything else."""
    try:
        url = httpx.URL(server)
        good, port = url.scheme in {"http", "https"} and bool(url.host), url.port
    except httpx.InvalidURL:
        good, port = False, None
    if good and port is not None and not 1 <= port <= PORT_MAX:
        raise BadInput(
            f"The port of {server!r} is out of range.", hint=f"Expected 1 to {PORT_MAX}."
        )
    if good:
        return server
    raise BadInput(
        f"{server!r} is not the URL of a daemon.", hint=f"Expected a URL such as {DEFAULT_SERVER}."
    )
