"""Run transcoding jobs with ffmpeg, and report success only for a verified output."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("distconv")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
