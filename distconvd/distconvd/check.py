"""`distconvd check`: whether the daemon would start, asked part by part without starting it.

Each part is tried for real: plugins are loaded, the store is opened, read and closed, the addresses
are bound and given back. So a daemon that runs already is seen as what it is: it holds both.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from distconvd.config import Config
from distconvd.daemon import assemble
from distconvd.errors import ConfigError, StoreError
from distconvd.keyfile import read_keys
from distconvd.listening import load_tls, open_all
from distconvd.plugins import Plugins

Found = tuple[str, bool, str]
"""What was tried, whether it is fine, and what was found or what to do."""


async def check(config: Config) -> list[Found]:
    """Try every part; the configuration itself has been read."""
    found = [("configuration", True, "read")]
    parts: list[tuple[str, Callable[[Config], Awaitable[str]]]] = [
        ("plugins", _plugins),
        ("keys", _keys),
        ("tls", _tls),
        ("store", _store),
        ("listen", _listen),
    ]
    for name, try_it in parts:
        try:
            found.append((name, True, await try_it(config)))
        except (ConfigError, StoreError) as error:
            found.append((name, False, str(error)))
    return found


async def _plugins(config: Config) -> str:
    return f"{len(Plugins(config.plugins).listing())} loaded"


async def _keys(config: Config) -> str:
    if config.key_file is not None:
        return f"{len(read_keys(Path(config.key_file)))} keys in {config.key_file}"
    return "one key" if config.api_key is not None else f"none (auth {config.authenticator})"


async def _tls(config: Config) -> str:
    return "off" if load_tls(config) is None else "certificate and key fit"


async def _store(config: Config) -> str:
    """Make everything that a start makes, but run nothing of it."""
    parts = await assemble(config, Plugins(config.plugins))
    try:
        return f"{config.store} at {config.state_file}: {len(parts.dispatcher.state.jobs)} jobs"
    finally:
        await parts.store.aclose()


async def _listen(config: Config) -> str:
    opened = await open_all(config)
    await opened.aclose()
    return ", ".join(opened.urls)
