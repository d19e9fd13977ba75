"""The watched tree: which videos lie in it, and which settings hold for each.

Nothing is followed: what is a link, a device or a pipe is left alone, whoever put it there. Folders
that results go to are left out, those of earlier settings too. What is kept in memory is a name, a
size and a time for each file that is there.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.hot_folder.names import DONE_NAME, SETTINGS_NAME, is_folder_served, is_video
from distconv_plugins.hot_folder.settings import Room, WrongSettings, is_within, make_room
from distconv_spool import BadDrop, Disk, Seen, Settler, printable

FILES_MAX = 100_000
DEPTH_MAX = 32
_SETTINGS_BYTES_MAX = 65_536


class Video(NamedTuple):
    """One video at one look."""

    seen: Seen
    """Its path relative to the watched folder, its size and its time."""
    room: Room

    @property
    def path(self) -> str:
        """Relative to the watched folder."""
        return self.seen.name

    @property
    def folder(self) -> str:
        """The folder that it is in, relative to the watched one."""
        return self.path.rpartition("/")[0]


class _Settings(NamedTuple):
    """What was made of one `distconv.toml`."""

    seen: Seen
    made: Room | WrongSettings


class Look(NamedTuple):
    """What one walk found."""

    videos: list[Video]
    """Those that can be served, and are not known yet."""
    wrong: dict[str, str]
    """Folders whose `distconv.toml` is wrong, and why."""
    troubles: set[str]
    """What could not be looked at, for the log."""


class Tree:
    """The watched folder.

    Args:
        watch: the folder, absolute.
        disk: the file system.
        settle_s: how long a file must stay the same.
        outputs: absolute folders that results have gone to; may grow between looks.
    """

    def __init__(self, watch: Path, disk: Disk, settle_s: float, outputs: set[str]) -> None:
        self._watch = watch
        self._disk = disk
        self._outputs = outputs
        self._videos = Settler(settle_s)
        self._texts = Settler(settle_s)
        self._rooms: dict[str, _Settings] = {}
        self._known: dict[str, Seen] = {}

    def look(self, now_s: float) -> Look:
        """Walk the tree once; return the videos that have settled and are not known, oldest first.

        Raises `OSError` when the watched folder itself cannot be read: nothing is forgotten then.
        """
        look = Look([], {}, set())
        walk = _Walk(self._disk, self._watch, look.troubles)
        files = list(walk.run())
        rooms = self._read_rooms(now_s, walk.texts, look)
        # What could not be read may hold settings: nothing is ordered there without them.
        rooms |= dict.fromkeys(walk.unread - rooms.keys(), _UNSETTLED)
        outputs = self._results_go_to()
        files = [seen for seen in files if not self._is_result(seen.name, outputs)]
        before, self._known = self._known, {}
        new: list[Seen] = []
        for seen in files:
            if (known := before.get(seen.name)) is not None and known.same_file(seen):
                self._known[seen.name] = known
            else:
                new.append(seen)
        for seen in self._videos.observe(now_s, new):
            room = self._room_of(seen.name, rooms, look)
            if isinstance(room, Room):
                look.videos.append(Video(seen, room))
        return look

    def know(self, video: Video) -> None:
        """Leave this video out from now on, until it changes or is gone."""
        self._known[video.path] = video.seen

    def rooms(self) -> Iterator[Room]:
        """Yield the rooms of all settings that can be obeyed."""
        for settings in self._rooms.values():
            if isinstance(settings.made, Room):
                yield settings.made

    def _read_rooms(
        self, now_s: float, texts: list[Seen], look: Look
    ) -> dict[str, Room | WrongSettings]:
        """Return what holds in each folder with a `distconv.toml`."""
        settled = {seen.name for seen in self._texts.observe(now_s, texts)}
        rooms: dict[str, Room | WrongSettings] = {}
        kept, self._rooms = self._rooms, {}
        for seen in texts:
            folder = seen.name
            before = kept.get(folder)
            if before is None or not before.seen.same_file(seen):
                before = self._read_room(folder, seen, look) if folder in settled else None
            rooms[folder] = before.made if before else _UNSETTLED
            if before is not None:
                self._rooms[folder] = before
                if isinstance(before.made, WrongSettings):
                    look.wrong[folder] = str(before.made)
        return rooms

    def _read_room(self, folder: str, seen: Seen, look: Look) -> _Settings | None:
        try:
            text, _ = self._disk.read(self._watch / folder / SETTINGS_NAME, _SETTINGS_BYTES_MAX)
            return _Settings(seen, make_room(self._watch, folder, text))
        except (BadDrop, WrongSettings) as error:
            return _Settings(seen, WrongSettings(str(error)))
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            return _Settings(seen, WrongSettings(f"The daemon cannot make sense of it: {error!r}"))
        except OSError as error:
            look.troubles.add(f"{printable(folder)}/{SETTINGS_NAME}: {error.strerror}")
            return None

    def _room_of(
        self, path: str, rooms: dict[str, Room | WrongSettings], look: Look
    ) -> Room | WrongSettings:
        """Return what holds for a video: the nearest settings above it, else its codec's."""
        folder = path.rpartition("/")[0]
        while folder not in rooms:
            if not folder:
                return self._plain_room(path.partition("/")[0], look)
            folder = folder.rpartition("/")[0]
        return rooms[folder]

    def _plain_room(self, codec: str, look: Look) -> Room | WrongSettings:
        try:
            return make_room(self._watch, codec, None)
        except WrongSettings as error:
            look.troubles.add(f"the folder {printable(codec)} is not served: {error}")
            return error

    def _results_go_to(self) -> set[str]:
        now = {os.path.realpath(room.base) for room in self.rooms() if not room.is_remote}
        return self._outputs | now

    def _is_result(self, path: str, outputs: set[str]) -> bool:
        place = str(self._watch / path)
        return any(is_within(place, output) for output in outputs)


_UNSETTLED = WrongSettings("It is not known yet what it says.")


class _Walk:
    """One walk through the tree, a folder at a time."""

    def __init__(self, disk: Disk, watch: Path, troubles: set[str]) -> None:
        self._disk = disk
        self._watch = watch
        self._troubles = troubles
        self.texts: list[Seen] = []
        """Each `distconv.toml`, named by its folder."""
        self.unread: set[str] = set()
        """Folders that could not be read, or not wholly."""

    def run(self) -> Iterator[Seen]:
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
                    # One byte more than it has: an empty one is a statement too, and settles.
                    self.texts.append(Seen(folder, status.st_size + 1, status.st_mtime_ns))
                elif folder and is_video(name) and stat.S_ISREG(status.st_mode):
                    left -= 1
                    if left < 0:
                        self._troubles.add(f"there are more than {FILES_MAX} videos; not all count")
                        return
                    yield Seen(path, status.st_size, status.st_mtime_ns)

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
                    continue  # renamed or removed in the middle of the walk: met again, or gone
        except OSError as error:
            if not folder:
                raise
            self.unread.add(folder)
            if not isinstance(error, FileNotFoundError):
                self._troubles.add(f"{printable(folder)}: {error.strerror}")
