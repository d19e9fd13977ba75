"""The dispatch server: takes jobs, keeps them safe, and gives each to the best engine.

For plugin authors: `from distconvd import hookimpl`, `distconvd.hookspecs` (every hook),
`distconvd.policy`, `distconvd.store`, `distconvd.model` (the vocabulary), `distconvd.errors` and
`distconvd.testing`. Everything else is internal.
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
