"""Decide where a result goes, from the job, the configuration and the daemon's address.

The job's own `output.url` wins, then the engine's `--output`, then the daemon's media store. A name
that the job asks for is used as it is; one made from the source is replaced by another if there is a
file of that name, and under an HTTP target it lies below the job's id. An existing file is replaced
only where the job says so (`options.overwrite`), or if it is this job's own earlier result. No name
and no folder below a root begins with a dot.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from distconv_engine.failures import InputFault, NotAllowedHere
from distconv_engine.transfer.download import decoded_path
from distconvd.model import Job

_NAME_BYTES_MAX = 200


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file name in a directory."""

    directory: Path
    """As the job or the engine names it."""
    name: str
    job_id: str
    root: Path
    """Allowed by the engine's settings."""
    parts: tuple[str, ...] = ()
    """The way from the root to the directory, all links followed when the target was chosen."""
    spare_name: str | None = None
    """Used if `name` exists already and may not be replaced; None: the job chose the name."""
    overwrite: bool = False
    """Whether the job wants an existing file of that name replaced."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A URL for PUT."""

    url: str
    is_media_store: bool = False
    """The daemon's own, and the only one that gets the key."""
    is_of_job: bool = False
    """The job names it, so that what it answers is nobody else's fault."""


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
    spare_name = None if named else spare
    if wanted is not None:
        return _job_target(job, wanted, name, spare_name, _all_roots(output, roots))
    below = f"{quote(job.job_id, safe='')}/{quote(name)}"
    if output is None:
        return HttpTarget(f"{server.rstrip('/')}/media/{below}", is_media_store=True)
    if output.startswith(("http://", "https://")):
        return HttpTarget(f"{output.rstrip('/')}/{below}")
    root, overwrite = directory_of(output), bool(job.options.overwrite)
    return FileTarget(root, name, job.job_id, root, (), spare_name, overwrite)


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
    if not name or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise InputFault("output.name must be a plain file name, without a folder.")
    if name.startswith("."):
        raise InputFault(f"The output's name must not begin with a dot: {name}.")
    return name


def _all_roots(output: str | None, roots: Sequence[Path]) -> list[Path]:
    is_directory = output is not None and not output.startswith(("http://", "https://"))
    return [*roots, directory_of(output)] if output and is_directory else list(roots)


def _job_target(
    job: Job, url: str, name: str, spare_name: str | None, roots: Sequence[Path]
) -> Target:
    if url.startswith(("http://", "https://")):
        return HttpTarget(url + quote(name) if url.endswith("/") else url, is_of_job=True)
    parts = urlsplit(url)
    path = Path(decoded_path(url))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or "\0" in str(path):
        raise InputFault(
            f"output.url must be an http(s) URL or an absolute file:// URL, not {url}."
        )
    if url.endswith("/") or path.is_dir():
        directory = path
    else:
        directory, name, spare_name = path.parent, _checked_name(path.name), None
    root, way = _below_a_root(directory, roots)
    return FileTarget(
        directory, name, job.job_id, root, way, spare_name, bool(job.options.overwrite)
    )


def _below_a_root(directory: Path, roots: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Return the root that contains a directory, and the way there; its links are followed."""
    resolved = Path(os.path.realpath(directory))
    for root in roots:
        real_root = Path(os.path.realpath(root))
        if directory.is_absolute() and resolved.is_relative_to(real_root):
            parts = resolved.relative_to(real_root).parts
            if any(part.startswith(".") for part in parts):
                raise InputFault(f"No folder of an output may begin with a dot: {directory}.")
            return real_root, parts
    raise NotAllowedHere(
        f"This engine may not write to {directory}: it is outside of its --source-root and --output."
        " Start it with one that contains this path, or submit another output."
    )
