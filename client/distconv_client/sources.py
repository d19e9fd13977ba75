"""Turn the path or URL that a person typed into a submission.

A path becomes an absolute, percent-encoded `file://` URL, and the file's size becomes the job's
size, which decides what kind of engine gets it. A URL is used unchanged; its size is unknown (0)
unless the caller gives it. Nothing here uses the network.
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
    """Whether `text` is meant as a URL and not as a path."""
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
        size_mb: the size of the source in MB (10^6 bytes); None: that of the file.
        with_sha256: read the file and send its SHA-256, with which the engine compares what it
            fetched.
        fields: further fields of `Submission`.

    Raises `BadInput` when the file does not exist, is not a regular file or is empty, and when
    the checksum of a URL is requested.
    """
    if isinstance(source, str) and is_url(source):
        if with_sha256:
            raise BadInput(
                f"The checksum of a URL cannot be computed: {source}.", hint="Leave out --sha256."
            )
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
    """Return `path` without `.` and `..`, links kept: an engine may know it by that name."""
    tidy = Path(os.path.abspath(path))
    # `link/../a` may be another file lexically than on disk; then the disk is right.
    if ".." in path.parts and tidy != path.resolve():
        return path.resolve()
    return tidy


def measured_bytes(path: Path) -> int:
    """Return the size of a regular file; raises `BadInput` for an empty one or anything else.

    The file is not opened: an engine may be allowed to read what this user may not.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
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
    """Return where results go: `target` is a URL, a directory or (for one source) a file.

    A path counts as a directory when it is one, ends with a slash, or has no suffix. Only the
    engine can check whether it can write there: the path may be another machine's.
    """
    if is_url(target):
        return Output(url=target)
    path = absolute(Path(target))
    if target.endswith("/") or path.is_dir() or not path.suffix:
        return Output(url=f"{path.as_uri().removesuffix('/')}/")
    if sources > 1:
        raise BadInput(
            f"{target} is one file, but there are {sources} sources.",
            hint=f"Name a directory, such as {target.removesuffix(path.suffix)}/.",
        )
    return Output(url=path.as_uri())
