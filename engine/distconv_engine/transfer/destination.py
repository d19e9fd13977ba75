"""Decide where a result goes, from the job, the configuration and the daemon's address.

The job's own `output.url` wins, then the engine's `--output`, then the daemon's media store. A name
that the job asks for is used as it is; a name made from the source never replaces an existing file,
and under an HTTP target it lies below the job's id.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from distconv_engine.failures import InputFault, NotAllowedHere
from distconv_engine.transfer.download import decoded_path, is_inside
from distconvd.model import Job

_NAME_BYTES_MAX = 200


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file name in a directory."""

    directory: Path
    name: str
    replace: bool
    """Whether a file of that name may be replaced: only if the job chose the name."""
    spare_name: str
    """Used if `name` exists already and may not be replaced."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A URL for PUT."""

    url: str
    is_media_store: bool = False
    """The daemon's own, and the only one that gets the key."""


Target = FileTarget | HttpTarget


def choose_target(
    job: Job, suffix: str, *, output: str | None, server: str, roots: Sequence[Path]
) -> Target:
    """Return where the result of `job` goes.

    Args:
        job: with its `output`, if it names one.
        suffix: of the container, with its dot.
        output: the engine's `--output`.
        server: base URL of the daemon.
        roots: directories that `file://` outputs may lie in, besides `output`.
    """
    wanted = job.output.url if job.output else None
    named = _checked_name(job.output.name) if job.output and job.output.name else None
    name = named or default_name(job.source_url, suffix)
    spare = f"{name.removesuffix(suffix)}-{job.job_id.replace('/', '_')[:100]}{suffix}"
    if wanted is not None:
        return _job_target(wanted, name, named is not None, spare, _all_roots(output, roots))
    below = f"{quote(job.job_id, safe='')}/{quote(name)}"
    if output is None:
        return HttpTarget(f"{server.rstrip('/')}/media/{below}", is_media_store=True)
    if output.startswith(("http://", "https://")):
        return HttpTarget(f"{output.rstrip('/')}/{below}")
    return FileTarget(directory_of(output), name, named is not None, spare)


def is_media_store(url: str, server: str) -> bool:
    """Whether `url` lies in the daemon's own media store, which requires the key."""
    here, there = urlsplit(server.rstrip("/") + "/media/"), urlsplit(url)
    same_origin = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    return same_origin and there.path.startswith(here.path) and "/../" not in there.path


def directory_of(output: str) -> Path:
    """Return the directory that `--output` names, as a path or a `file://` URL."""
    path = decoded_path(output) if output.startswith("file://") else output
    return Path(path).expanduser().absolute()


def default_name(source_url: str, suffix: str) -> str:
    """Return the source's stem with the container's suffix, as a harmless file name.

    It may become part of a URL, so bytes that are not UTF-8 are replaced.
    """
    last = unquote(urlsplit(source_url).path).rstrip("/").rpartition("/")[2]
    stem = last.rpartition(".")[0] or last
    plain = "".join("_" if char < " " or char in "/\\\x7f" else char for char in stem).strip(" .")
    cut = plain.encode("utf-8", "replace")[:_NAME_BYTES_MAX].decode("utf-8", "ignore")
    return (cut or "output") + suffix


def _checked_name(name: str) -> str:
    if name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise InputFault("output.name must be a plain file name, without a folder.")
    return name


def _all_roots(output: str | None, roots: Sequence[Path]) -> list[Path]:
    is_directory = output is not None and not output.startswith(("http://", "https://"))
    return [*roots, directory_of(output)] if output and is_directory else list(roots)


def _job_target(url: str, name: str, named: bool, spare: str, roots: Sequence[Path]) -> Target:
    if url.startswith(("http://", "https://")):
        return HttpTarget(url + quote(name) if url.endswith("/") else url)
    parts = urlsplit(url)
    path = Path(decoded_path(url))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or "\0" in str(path):
        raise InputFault(
            f"output.url must be an http(s) URL or an absolute file:// URL, not {url}."
        )
    if not path.is_absolute() or not is_inside(_resolved(path), roots):
        raise NotAllowedHere(
            f"This engine may not write to {path}: it is outside of its --source-root and --output."
            " Start it with one that contains this path, or submit another output."
        )
    if url.endswith("/") or path.is_dir():
        return FileTarget(path, name, named, spare)
    return FileTarget(path.parent, _checked_name(path.name), True, spare)


def _resolved(path: Path) -> Path:
    return path.resolve()
