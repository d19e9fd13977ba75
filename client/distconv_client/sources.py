"""From what a person writes to what the daemon takes: a file's path or a URL as a source.

A path becomes an absolute, percent-encoded `file://` URL, and the file's size the job's size,
which decides what kind of engine gets it. A URL is taken as it is, its size unknown (0) unless
the caller knows it. Nothing here talks to the network.
"""

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any

from distconv_client.errors import BadInput
from distconvd.model import Output, Submission

MB = 1_000_000
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(text: str) -> bool:
    """Tell whether a person who wrote `text` meant a URL and not a path."""
    return URL.match(text) is not None


def submission_for(
    source: str | os.PathLike[str],
    codec: str,
    *,
    size_mb: float | None = None,
    with_sha256: bool = False,
    **fields: Any,
) -> Submission:
    """Return the submission for one source.

    Args:
        source: a URL, or the path of a file on this machine.
        codec: the target codec.
        size_mb: the size of the source in MB (10^6 bytes); None measures a file.
        with_sha256: read the file and send its SHA-256, which the engine then holds against what
            it fetched.
        fields: further fields of `Submission`.

    Raises `BadInput` when the file is not there, is no regular file or is empty, and when the
    checksum of a URL is asked for.
    """
    if isinstance(source, str) and is_url(source):
        if with_sha256:
            raise BadInput(f"{source} can not be measured from here.", hint="Leave --sha256 out.")
        return Submission(source, codec, job_size=size_mb or 0.0, **fields)
    path = absolute(Path(source))
    size_bytes = measured_bytes(path)
    return Submission(
        path.as_uri(),
        codec,
        job_size=size_bytes / MB if size_mb is None else size_mb,
        source_sha256=sha256_of(path) if with_sha256 else None,
        **fields,
    )


def absolute(path: Path) -> Path:
    """Return `path` without `.` and `..`, its links kept: an engine may know it by that name."""
    tidy = Path(os.path.abspath(path))
    # `link/../a` is a different file by its letters than on disk; then the disk is right.
    if ".." in path.parts and tidy != path.resolve():
        return path.resolve()
    return tidy


def measured_bytes(path: Path) -> int:
    """Return the size of a regular file that holds something; raises `BadInput`.

    It is not opened: that this user may not read it does not mean that an engine may not.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise BadInput(f"Can not read {path}: {error.strerror}.") from error
    if stat.S_ISDIR(facts.st_mode):
        hint = f"Name the files in it, such as {path}/*.mp4."
        raise BadInput(f"{path} is a directory.", hint=hint)
    if not stat.S_ISREG(facts.st_mode):
        raise BadInput(f"{path} is not a regular file.")
    if facts.st_size == 0:
        raise BadInput(f"{path} is empty.")
    return facts.st_size


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_for(target: str, *, sources: int = 1) -> Output:
    """Return where results should go: `target` is a URL, a directory or (for one source) a file.

    A path counts as a directory when it is one, ends with a slash, or has no suffix. Whether the
    engine can write there is for the engine to say: it may be another machine's path.
    """
    if is_url(target):
        return Output(url=target)
    path = absolute(Path(target))
    if target.endswith("/") or path.is_dir() or not path.suffix:
        return Output(url=f"{path.as_uri().removesuffix('/')}/")
    if sources > 1:
        raise BadInput(
            f"{target} is one file, and there are {sources} sources.",
            hint=f"Name a directory, such as {target.removesuffix(path.suffix)}/.",
        )
    return Output(url=path.as_uri())
