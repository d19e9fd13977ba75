"""Build ffmpeg's input arguments, so that no file name or playlist can mislead it.

- A local file is always `file:` and an absolute path: a name such as `-x`, `%d` or `concat:a|b` is
  then only a name.
- The protocols are a whitelist, and so are the containers (see `demuxers`): playlists, which name
  *other* files, are not among them.
"""

from pathlib import Path

from distconv_engine.ffmpeg.demuxers import DEMUXER_NAMES

LOCAL_PROTOCOLS = "file"
REMOTE_PROTOCOLS = "http,tcp"
"""To the engine's own relay, which alone connects to other machines."""
STDIN = "pipe:0"
CHECKSUMS = "crccheck"
"""Decoders check the checksums inside frames (AC-3, FLAC, MP3) only with this option."""


def file_url(path: Path) -> str:
    """Return the name under which ffmpeg reads the local file `path`."""
    return f"file:{path.absolute()}"


def is_remote(url: str) -> bool:
    """Whether ffmpeg would read it over the network."""
    return url.startswith(("http://", "https://"))


def read_arguments(url: str, formats: str | None = None) -> list[str]:
    """Return the arguments that open `url` for reading.

    Args:
        url: from `file_url`, the URL of a `Relay`, or `STDIN`.
        formats: the only demuxers allowed; default: all of `DEMUXERS`.
    """
    protocols = REMOTE_PROTOCOLS if is_remote(url) else LOCAL_PROTOCOLS
    if url == STDIN:
        protocols = "pipe"
    whitelist = ["-protocol_whitelist", protocols, "-format_whitelist", formats or DEMUXER_NAMES]
    # The environment's proxy is for other machines, not for the engine's own relay.
    proxy = ["-http_proxy", ""] if is_remote(url) else []
    return [*whitelist, *proxy, "-err_detect", CHECKSUMS, "-i", url]
