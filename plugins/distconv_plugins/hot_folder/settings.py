"""Turn a `distconv.toml` into the output rule of its folder and those below. Reads no file.

The nearest one above a video applies, alone: nothing is merged, so a person reads one file to know
what happens. A wrong one is never applied in part: its folder is not served until it is fixed.
"""

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from distconv_plugins.hot_folder.names import DONE_NAME
from distconvd.errors import BadRequest
from distconvd.model import CODECS, Output, Submission, TranscodeOptions, canonical_codec
from distconvd.plugin_api import check_codec, check_submission

_UNKNOWN = re.compile(r"unknown field `([^`]+)`")

LABEL = "hot-folder"
"""The label that names the order of a job from a hot folder. Not for people to set."""


class StrictOptions(TranscodeOptions, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The options of a job; a misspelt one is rejected, since nobody would see it ignored."""


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a `distconv.toml`; except for `output` they are those of a job."""

    output: str | None = None
    """A folder, relative to this file, or a URL (`file://`, `http://`, `https://`). The folders
    below this one are created there too. Default: `done/<codec>` in the watched folder."""
    priority: int = 0
    max_retries: int = 3
    requires: list[str] = []
    labels: dict[str, str] = {}
    options: StrictOptions = StrictOptions()


class WrongSettings(Exception):
    """A `distconv.toml` that cannot be applied; the text explains why to its author."""


class OutputRule(msgspec.Struct, frozen=True):
    """A folder with the settings that apply to it and the folders below."""

    path: str
    """Relative to the watched folder."""
    codec: str
    settings: FolderSettings
    base: str
    """Where results go: an absolute path, or an http(s) URL without a slash at its end."""
    top: str
    """The folder whose subfolders are reproduced below `base`, relative to the watched folder."""

    @property
    def is_remote(self) -> bool:
        """Whether results are sent by HTTP."""
        return self.base.startswith(("http://", "https://"))

    def output_url(self, folder: str) -> str:
        """Return the URL, with a slash at its end, for the results of a folder under this rule."""
        below = _below(self.top, folder)
        if self.is_remote:
            return self.base + "/" + (quote(os.fsencode(below)) + "/" if below else "")
        return "file://" + quote(os.fsencode(os.path.join(self.base, below))).rstrip("/") + "/"

    def output_folder(self, watch: Path, folder: str) -> Path:
        """Return where reports on videos in `folder` go: next to the results, or to the videos."""
        if self.is_remote:
            return watch / folder
        return Path(os.path.join(self.base, _below(self.top, folder)))


def make_output_rule(
    watch: Path, path: str, text: bytes | None, roots: Sequence[Path] = ()
) -> OutputRule:
    """Return the output rule of a folder.

    Args:
        watch: the watched folder, absolute.
        path: the folder, relative to `watch`; its first part is the codec.
        text: its `distconv.toml`; None for a codec's folder without one.
        roots: folders below which results may go, besides `watch`.

    Raises:
        WrongSettings: the settings cannot be applied.
    """
    codec = path.partition("/")[0] if path else ""
    settings = FolderSettings() if text is None else _parse(text)
    output_rule = OutputRule(path, codec, settings, *_base(watch, path, settings.output))
    if not output_rule.is_remote:
        _check_allowed(output_rule.base, [watch, *roots])
    try:
        # The root's settings apply to many codecs: the daemon checks the job of each video.
        check_submission(submission(output_rule, "file:///v.mov", 0, path, "x"), ["file"])
    except BadRequest as error:
        raise WrongSettings(error.detail) from None
    return output_rule


def submission(
    output_rule: OutputRule, source_url: str, size_bytes: int, folder: str, tag: str
) -> Submission:
    """Return the job for one video.

    Args:
        output_rule: what applies to it.
        source_url: where it is.
        size_bytes: its size.
        folder: the folder that it is in, relative to the watched one.
        tag: the value of `LABEL`.
    """
    settings = output_rule.settings
    return Submission(
        source_url,
        # A folder's name may be any bytes; the daemon rejects one that is not a codec.
        _utf8(folder.partition("/")[0]) or "h264",
        job_size=size_bytes / 1e6,
        max_retries=settings.max_retries,
        priority=settings.priority,
        labels={**settings.labels, LABEL: tag},
        requires=settings.requires,
        options=settings.options,
        output=Output(url=output_rule.output_url(folder)),
    )


def maybe_codec_fault(name: str) -> str | None:
    """Return why no codec can have this name; None if one can."""
    try:
        check_codec(name, "target_codec")
    except BadRequest as error:
        return error.detail
    return None


def _parse(text: bytes) -> FolderSettings:
    try:
        found: dict[str, Any] = tomllib.loads(text.decode("utf-8-sig"))
        return msgspec.convert(found, FolderSettings)
    except msgspec.ValidationError as error:
        raise WrongSettings(_explain(error)) from None
    except (ValueError, OverflowError, RecursionError) as error:
        # Malformed TOML, or an integer with more digits than Python converts.
        raise WrongSettings(f"It is not valid TOML: {error}.") from None


def _explain(error: msgspec.ValidationError) -> str:
    """Return msgspec's message with the name of the setting first."""
    message, _, place = str(error).partition(" - at `$")
    name = place.strip(".`")
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        name = f"{name}.{unknown[1]}" if name else unknown[1]
        message = "this setting is not accepted"
    return f"{name}: {message}." if name else f"{message}."


def _base(watch: Path, path: str, output: str | None) -> tuple[str, str]:
    """Return where the results go, and the folder whose subfolders are reproduced there."""
    if output is None:
        return str(watch / DONE_NAME), ""
    if output.startswith(("http://", "https://")):
        return output.rstrip("/"), path
    if output.startswith("file:"):
        parts = _split(output)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise WrongSettings(
                "output: expected a file URL with three slashes, such as file:///srv/done."
            )
        output = unquote(parts.path)
    if not output or "\0" in output or output.startswith("~"):
        raise WrongSettings("output: name a folder, or leave the line out.")
    base = os.path.normpath(watch / path / output)
    _check_apart(watch, path, base)
    return base, path


def _check_allowed(base: str, roots: Sequence[Path]) -> None:
    """Refuse an output folder outside of what the operator allows: the daemon writes reports there."""
    if not is_below_a_root(base, roots):
        raise WrongSettings(
            f"output: {_utf8(base)} is not below the watched folder, nor below another one that the"
            " daemon's setting plugin.hot-folder.output_roots allows."
        )


def is_below_a_root(folder: str, roots: Sequence[Path]) -> bool:
    """Whether a folder, its links followed, is one of `roots` or below it."""
    real = os.path.realpath(folder)
    return any(is_within(real, os.path.realpath(root)) for root in roots)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise WrongSettings(f"output: not a URL: {error}.") from None


def _check_apart(watch: Path, path: str, base: str) -> None:
    """Refuse an output folder among the videos: its results would be taken for videos."""
    real, own, root = (os.path.realpath(p) for p in (base, watch / path, watch))
    if is_within(own, real) or is_within(root, real):
        raise WrongSettings(
            f"output: {_utf8(base)} is or contains the folder that videos are taken from;"
            ' results need one of their own, such as "done".'
        )
    if os.path.dirname(real) == root and canonical_codec(os.path.basename(real)) in CODECS:
        raise WrongSettings(
            f"output: {_utf8(base)} is a codec's own folder; choose another one for results."
        )


def _utf8(name: str) -> str:
    """Return a name, which may be any bytes, as text that can be encoded."""
    return os.fsencode(name).decode(errors="replace")


def is_within(path: str, roof: str) -> bool:
    """Whether an absolute path is `roof` or below it."""
    return path == roof or path.startswith(roof.rstrip("/") + "/")


def _below(top: str, folder: str) -> str:
    return folder[len(top) :].lstrip("/") if is_within(folder, top) or not top else folder
