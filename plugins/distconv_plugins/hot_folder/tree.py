"""Scan the watched tree for videos, and find the settings that apply to each.

Links are not followed, and devices and pipes are left alone. Folders that results go to are left
out, also those of earlier settings. The memory used is a name, a size and a time for each file.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.hot_folder.names import DONE_NAME, SETTINGS_NAME, is_folder_served, is_video
from distconv_plugins.hot_folder.settings import (
    OutputRule,
    WrongSettings,
    is_within,
    make_output_rule,
)
from distconv_spool import BadDrop, Disk, Observed, StabilityTracker, printable

FILES_MAX = 100_000
DEPTH_MAX = 32
_SETTINGS_BYTES_MAX = 65_536


class Video(NamedTuple):
    """One video at one scan."""

    observed: Observed
    """Its path relative to the watched folder, its size and its time."""
    output_rule: OutputRule

    @property
    def path(self) -> str:
        """Relative to the watched folder."""
        return self.observed.name

    @property
    def folder(self) -> str:
        """The folder that it is in, relative to the watched one."""
        return self.path.rpartition("/")[0]


class _Settings(NamedTuple):
    """One `distconv.toml` and what it means."""

    observed: Observed
    result: OutputRule | WrongSettings


class Scan(NamedTuple):
    """The findings of one walk."""

    videos: list[Video]
    """Those that can be submitted and are not known yet."""
    wrong: dict[str, str]
    """Folders whose `distconv.toml` is wrong, and why."""
    troubles: set[str]
    """What could not be read, for the log."""


class Tree:
    """The watched folder.

    Args:
        watch: the folder, absolute.
        disk: the file system.
        settle_s: how long a file must stay the same.
        outputs: absolute folders that results have gone to; may grow between scans.
    """

    def __init__(
        self,
        watch: Path,
        disk: Disk,
        settle_s: float,
        outputs: set[str],
        roots: Sequence[Path],
    ) -> None:
        self._roots = roots
        self._watch = watch
        self._disk = disk
        self._outputs = outputs
        self._videos = StabilityTracker(settle_s)
        self._texts = StabilityTracker(settle_s)
        self._output_rules: dict[str, _Settings] = {}
        self._known: dict[str, Observed] = {}

    def scan(self, now_s: float) -> Scan:
        """Walk the tree once; return the stable videos that are not known yet, oldest first.

        Raises `OSError` when the watched folder itself cannot be read; nothing is forgotten then.
        """
        found = Scan([], {}, set())
        walk = _Walk(self._disk, self._watch, found.troubles)
        files = list(walk.run())
        output_rules = self._read_output_rules(now_s, walk.texts, found)
        # A folder that could not be read may contain settings: nothing is ordered without them.
        output_rules |= dict.fromkeys(walk.unread - output_rules.keys(), _UNSETTLED)
        outputs = self._results_go_to()
        files = [observed for observed in files if not self._is_result(observed.name, outputs)]
        before, self._known = self._known, {}
        new: list[Observed] = []
        for observed in files:
            if (known := before.get(observed.name)) is not None and known.same_file(observed):
                self._known[observed.name] = known
            else:
                new.append(observed)
        for observed in self._videos.observe(now_s, new):
            output_rule = self._output_rule_of(observed.name, output_rules, found)
            if isinstance(output_rule, OutputRule):
                found.videos.append(Video(observed, output_rule))
        return found

    def know(self, video: Video) -> None:
        """Leave this video out of scans until it changes or is gone."""
        self._known[video.path] = video.observed

    def output_rules(self) -> Iterator[OutputRule]:
        """Yield the output rules of all valid settings."""
        for settings in self._output_rules.values():
            if isinstance(settings.result, OutputRule):
                yield settings.result

    def _read_output_rules(
        self, now_s: float, texts: list[Observed], found: Scan
    ) -> dict[str, OutputRule | WrongSettings]:
        """Return the output rule of each folder with a `distconv.toml`."""
        stable = {observed.name for observed in self._texts.observe(now_s, texts)}
        output_rules: dict[str, OutputRule | WrongSettings] = {}
        reused, self._output_rules = self._output_rules, {}
        for observed in texts:
            folder = observed.name
            before = reused.get(folder)
            if before is None or not before.observed.same_file(observed):
                before = (
                    self._read_output_rule(folder, observed, found) if folder in stable else None
                )
            output_rules[folder] = before.result if before else _UNSETTLED
            if before is not None:
                self._output_rules[folder] = before
                if isinstance(before.result, WrongSettings):
                    found.wrong[folder] = str(before.result)
        return output_rules

    def _read_output_rule(self, folder: str, observed: Observed, found: Scan) -> _Settings | None:
        try:
            text, _ = self._disk.read(self._watch / folder / SETTINGS_NAME, _SETTINGS_BYTES_MAX)
            return _Settings(observed, make_output_rule(self._watch, folder, text, self._roots))
        except (BadDrop, WrongSettings) as error:
            return _Settings(observed, WrongSettings(str(error)))
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            return _Settings(observed, WrongSettings(f"The daemon cannot interpret it: {error!r}."))
        except OSError as error:
            found.troubles.add(f"{printable(folder)}/{SETTINGS_NAME}: {error.strerror}")
            return None

    def _output_rule_of(
        self, path: str, output_rules: dict[str, OutputRule | WrongSettings], found: Scan
    ) -> OutputRule | WrongSettings:
        """Return the rule for a video: of the nearest settings above it, else its codec's."""
        folder = path.rpartition("/")[0]
        while folder not in output_rules:
            if not folder:
                return self._default_output_rule(path.partition("/")[0], found)
            folder = folder.rpartition("/")[0]
        return output_rules[folder]

    def _default_output_rule(self, codec: str, found: Scan) -> OutputRule | WrongSettings:
        try:
            return make_output_rule(self._watch, codec, None, self._roots)
        except WrongSettings as error:
            found.troubles.add(f"the folder {printable(codec)} is not served: {error}")
            return error

    def _results_go_to(self) -> set[str]:
        now = {
            os.path.realpath(output_rule.base)
            for output_rule in self.output_rules()
            if not output_rule.is_remote
        }
        return self._outputs | now

    def _is_result(self, path: str, outputs: set[str]) -> bool:
        place = str(self._watch / path)
        return any(is_within(place, output) for output in outputs)


_UNSETTLED = WrongSettings("It has not been read yet.")


class _Walk:
    """A walk through the tree, a folder at a time."""

    def __init__(self, disk: Disk, watch: Path, troubles: set[str]) -> None:
        self._disk = disk
        self._watch = watch
        self._troubles = troubles
        self.texts: list[Observed] = []
        """Each `distconv.toml`, named by its folder."""
        self.unread: set[str] = set()
        """Folders that could not be read, or only in part."""

    def run(self) -> Iterator[Observed]:
        """Yield each video file, named by its path."""
        left = FILES_MAX
        folders = [""]
        while folders:
            folder = folders.pop()
            for name, status in self._entries(folder):
                path = f"{folder}/{name}" if folder else name
                if stat.S_ISDIR(status.st_mode):
                    if self._enters(folder, name):
                        folders.append(path)
                elif name == SETTINGS_NAME:
                    # One byte more than its size: an empty file never counts as stable, but empty
                    # settings are valid.
                    self.texts.append(Observed(folder, status.st_size + 1, status.st_mtime_ns))
                elif folder and is_video(name) and stat.S_ISREG(status.st_mode):
                    left -= 1
                    if left < 0:
                        self._troubles.add(
                            f"there are more than {FILES_MAX} videos; the rest is ignored for now"
                        )
                        return
                    yield Observed(path, status.st_size, status.st_mtime_ns)

    def _enters(self, folder: str, name: str) -> bool:
        if not folder and name == DONE_NAME:
            return False
        return is_folder_served(name) and folder.count("/") < DEPTH_MAX

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        place = self._watch / folder
        try:
            for name in self._disk.scan(place):
                if name != SETTINGS_NAME and not is_folder_served(name):
                    continue
                try:
                    yield name, self._disk.lstat(place / name)
                except FileNotFoundError:
                    continue  # renamed or removed during the walk: found again later, or gone
        except OSError as error:
            if not folder:
                raise
            self.unread.add(folder)
            if not isinstance(error, FileNotFoundError):
                self._troubles.add(f"{printable(folder)}: {error.strerror}")
