"""Take jobs, keep them safe on disk, and give each to the best engine: the dispatch server.

For plugin authors: `from distconvd import hookimpl`, `distconvd.hookspecs` (every hook),
`distconvd.policy`, `distconvd.store`, `distconvd.auth`, `distconvd.disk`, `distconvd.model` (the
vocabulary), `distconvd.errors`, `distconvd.testing`, and `distconvd.plugin_api`, which re-exports
the few names beyond these that a plugin needs. Everything else is internal.
"""

from importlib.metadata import PackageNotFoundError, version

import pluggy

try:
    __version__ = version("distconv")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

hookimpl = pluggy.HookimplMarker("distconvd")
"""Marks a function of a plugin as the implementation of the hook of its name."""

__all__ = ["__version__", "hookimpl"]
