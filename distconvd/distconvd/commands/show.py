"""Show the merged settings (`distconvd config`) and plugins (`distconvd plugins`)."""

# ruff: noqa: T201 - a command's output is its job

from distconvd.config import Config, Loaded, describe
from distconvd.plugin_host.loading import Plugins


def show_config(loaded: Loaded) -> None:
    """Print every setting with its origin."""
    plugins = Plugins(loaded.config.plugins)
    rows = describe(loaded, plugins.settings_types())
    key_width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        print(f"{key:{key_width}} = {value}  # {origin}")
    for name in sorted(loaded.config.plugin.keys() - plugins.settings_types().keys()):
        print(f"# no loaded plugin declares [plugin.{name}]: is the name right?")


def show_plugins(config: Config) -> None:
    """Print every loaded plugin with its hooks."""
    for plugin in Plugins(config.plugins).listing():
        version = f" {plugin.version}" if plugin.version else ""
        print(f"{plugin.name}{version} ({plugin.origin})")
        for hook in plugin.hooks:
            print(f"  {hook}")
