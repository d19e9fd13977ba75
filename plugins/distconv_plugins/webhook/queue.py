"""Keep the webhook's events on disk until they are acknowledged.

One SQLite file (SQLite comes with Python, and serves here as a file format) has a row for each
event and URL, oldest first. Rows are added many at a time in one transaction, which is on disk when
`add` returns. The rows of each URL are bounded: beyond that the oldest are removed. The methods
block; call them in a thread, one at a time.
"""

import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.shared.os_errors import describe_error
from distconvd.errors import ConfigError

log = logging.getLogger("distconvd.webhook")

FORMAT = 1


class Waiting(NamedTuple):
    """One event that one URL has not acknowledged."""

    number: int
    event_id: str
    kind: str
    body: bytes


class WebhookQueue:
    """See the module.

    Args:
        path: the file; created if it is missing, readable by its owner only.
        size_max: how many events may wait for one URL.

    A damaged file is set aside under another name, which is logged, and an empty one takes its place:
    the daemon serves jobs, and must not wait for its webhook.

    Raises `ConfigError` for a file of a newer version, and `OSError` for one that cannot be opened now.
    """

    def __init__(self, path: Path, size_max: int) -> None:
        self._size_max = size_max
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_sound(path) or _replace_damaged(path)
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY AUTOINCREMENT,"
                " url TEXT, event_id TEXT, kind TEXT, body BLOB)"
            )
            self._file.execute("CREATE INDEX IF NOT EXISTS by_url ON waiting (url, number)")
            self._file.execute(f"PRAGMA user_version = {FORMAT}")
        except (sqlite3.Error, OSError) as error:
            reason = describe_error(error)
            raise OSError(f"the webhook's queue {path} cannot be opened: {reason}") from error

    def add(self, urls: Sequence[str], events: Sequence[tuple[str, str, bytes]]) -> int:
        """Add (id, kind, body) for each URL; return how many old rows were removed for them.

        Raises `OSError` if they could not be written; then none of them is.
        """
        try:
            with self._file:
                self._file.execute("BEGIN IMMEDIATE")
                for url in urls:
                    self._file.executemany(
                        "INSERT INTO waiting (url, event_id, kind, body) VALUES (?, ?, ?, ?)",
                        ((url, *event) for event in events),
                    )
                return sum(self._trim(url) for url in urls)
        except sqlite3.Error as error:
            raise OSError(f"the webhook's queue cannot be written: {error}") from error

    def _trim(self, url: str) -> int:
        oldest_kept = self._file.execute(
            "SELECT number FROM waiting WHERE url = ? ORDER BY number DESC LIMIT 1 OFFSET ?",
            (url, self._size_max),
        ).fetchone()
        if oldest_kept is None:
            return 0
        return self._file.execute(
            "DELETE FROM waiting WHERE url = ? AND number <= ?", (url, oldest_kept[0])
        ).rowcount

    def first(self, url: str) -> Waiting | None:
        """Return the event that has waited longest for a URL; None if there is none."""
        row = self._file.execute(
            "SELECT number, event_id, kind, body FROM waiting WHERE url = ? ORDER BY number LIMIT 1",
            (url,),
        ).fetchone()
        return None if row is None else Waiting(*row)

    def remove(self, number: int) -> None:
        """Remove an event that was acknowledged or dropped."""
        self._file.execute("DELETE FROM waiting WHERE number = ?", (number,))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open_sound(path: Path) -> sqlite3.Connection | None:
    """Open the file, which is made if it is missing; return None if it is damaged.

    Raises `ConfigError` for a file of a newer version, and `OSError` or `sqlite3.OperationalError` for
    one that cannot be opened now, as on a full disk.
    """
    path.touch(mode=0o600)
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA synchronous = FULL")
        [(version,)] = file.execute("PRAGMA user_version")
        if version not in (0, FORMAT):
            raise ConfigError(f"{path} was written by a newer version of the webhook plugin")
        if file.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
            return file
    except sqlite3.OperationalError:
        file.close()
        raise
    except sqlite3.DatabaseError as error:
        log.debug("%s: %s", path, error)  # `_replace_damaged` says what is done about it
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _replace_damaged(path: Path) -> sqlite3.Connection:
    """Rename a damaged file and what belongs to it; return an empty one in its place."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    path.rename(aside)
    for suffix in ("-journal", "-wal", "-shm"):
        belongs = path.with_name(path.name + suffix)
        if belongs.exists():
            belongs.rename(aside.with_name(aside.name + suffix))
    log.error("the webhook's queue is damaged; its events are in %s and are not delivered", aside)
    made = _open_sound(path)
    if made is None:
        raise OSError("an empty file in its place is damaged, too")
    return made
