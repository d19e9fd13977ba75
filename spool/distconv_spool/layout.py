"""Create the folders of a spool and check their permissions (docs/spool.md, Permissions).

The root belongs to the daemon, and submitters cannot write to it. Therefore every other module may
name the folders by path: nobody else can replace one by a link.
"""

import os
import stat
from pathlib import Path

from distconv_spool.disk import kind_of
from distconv_spool.errors import SpoolUnusable

_PRIVATE = 0o700
_SHARED = {
    "": 0o2750,
    "tmp": 0o3770,
    "incoming": 0o3770,
    "claimed": 0o2700,
    "accepted": 0o2750,
    "rejected": 0o2750,
    "results": 0o2750,
}
FOLDERS = tuple(name for name in _SHARED if name)


class Layout:
    """The paths of one spool."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"
        self.incoming = root / "incoming"
        self.claimed = root / "claimed"
        self.accepted = root / "accepted"
        self.rejected = root / "rejected"
        self.results = root / "results"

    def longest_name_bytes(self) -> int:
        """Return the length of the longest file name that the file system allows, in bytes."""
        return min(255, os.pathconf(self.incoming, "PC_NAME_MAX"))


def create(root: Path | str, *, group: int | None = None) -> Layout:
    """Create what is missing of a spool, check it, and return its layout.

    Args:
        root: its folder; the parent must exist.
        group: the id of a group whose members may submit. All modes are then set each time, so
            that a crash in the middle leaves nothing half shared. With None new folders are
            private to this user, and existing ones keep their modes.

    Raises:
        SpoolUnusable: as `check`.
        OSError: a folder cannot be created or changed.
    """
    layout = Layout(Path(root).resolve())
    for name, mode in _SHARED.items():
        make_folder(layout.root / name, mode, group)
    return check(layout.root)


def make_folder(path: Path, shared_mode: int, group: int | None) -> None:
    """Create one folder: private, or shared with a group under the given mode."""
    path.mkdir(_PRIVATE, exist_ok=True)
    if group is not None:
        _require_folder(path)
        os.chown(path, -1, group)
        os.chmod(path, shared_mode)


def check(root: Path | str) -> Layout:
    """Return the layout of an existing spool.

    Raises:
        SpoolUnusable: a folder is missing, is a link, is on another file system, or is writable by
            anybody.
    """
    layout = Layout(Path(root).resolve())
    try:
        root_status = os.stat(layout.root)
        _refuse_shared_root(layout.root, root_status)
        for name in FOLDERS:
            status = _require_folder(layout.root / name)
            if status.st_dev != root_status.st_dev:
                raise SpoolUnusable(
                    f"{layout.root / name} is on another file system than the spool, "
                    "so a drop could not be moved there by a rename."
                )
    except FileNotFoundError as error:
        raise SpoolUnusable(
            f"{layout.root} is not a spool: {error.filename} is missing. "
            "A daemon with a --spool-dir creates it when it starts."
        ) from None
    return layout


def _require_folder(path: Path) -> os.stat_result:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolUnusable(f"{path} must be a folder, but is {kind_of(status.st_mode)}.")
    _refuse_world_writable(path, status)
    return status


def _refuse_world_writable(path: Path, status: os.stat_result) -> None:
    if status.st_mode & stat.S_IWOTH:
        raise SpoolUnusable(f"Anybody may write to {path}: run 'chmod o-w' on it.")


def _refuse_shared_root(path: Path, status: os.stat_result) -> None:
    """Reject a root in which others could replace the folders by links."""
    _refuse_world_writable(path, status)
    if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISVTX:
        raise SpoolUnusable(f"A group may replace the folders in {path}: run 'chmod g-w' on it.")
