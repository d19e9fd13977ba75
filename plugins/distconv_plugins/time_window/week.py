"""Represent hours of the week as an integer with a bit for each minute, from Monday 00:00.

So a union of windows is `|`, "open now" is one bit, and the next opening is the lowest bit of the
week after it is rotated to the present minute. All hours are local time.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_DAY_MINUTES = 1440
_MINUTE_MS = 60_000


class Week:
    """The weeks of one time zone.

    Args:
        timezone: its name, such as `Europe/Berlin`.

    Raises `ValueError` for an unknown one.
    """

    def __init__(self, timezone: str) -> None:
        try:
            self._zone = ZoneInfo(timezone)
        except (OSError, ValueError, KeyError) as error:  # KeyError: ZoneInfoNotFoundError
            raise ValueError(
                f"timezone {timezone!r} is unknown on this machine;"
                " expected a name such as Europe/Berlin"
            ) from error
        self._minute_ms = -1
        self._minute = 0

    def minute_of(self, now_ms: int) -> int:
        """Return the minute of the week; calculated once a minute, then cached."""
        if now_ms // _MINUTE_MS != self._minute_ms:
            self._minute_ms = now_ms // _MINUTE_MS
            local = datetime.fromtimestamp(now_ms / 1000, self._zone)
            self._minute = local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute
        return self._minute

    def opens_at_ms(self, minutes: int, now_ms: int) -> int | None:
        """Return when the next of these minutes begins; None if there are none."""
        at = self.minute_of(now_ms)
        rotated = (minutes >> at) | (minutes << (7 * _DAY_MINUTES - at))
        if not rotated:
            return None
        ahead = (rotated & -rotated).bit_length() - 1  # the lowest bit that is set
        begin_ms = now_ms // _MINUTE_MS * _MINUTE_MS
        due = datetime.fromtimestamp(begin_ms / 1000, self._zone) + timedelta(minutes=ahead)
        # Wall-clock arithmetic, so that 22:00 stays 22:00 when the clock changes.
        return max(now_ms + 1000, int(due.timestamp() * 1000))


def minutes_of(days: Iterable[str], hours: str) -> int:
    """Return the minutes of a week that a window is open; raises `ValueError`."""
    found = _HOURS.fullmatch(hours)
    begin, end = 0, 0
    if found is not None:
        begin, end = (60 * int(found[i]) + int(found[i + 1]) for i in (1, 3))
    if found is None or begin == end or end > _DAY_MINUTES:
        raise ValueError(f"hours {hours!r}: expected a time range such as 22:00-06:00")
    length = end - begin if end > begin else end - begin + _DAY_MINUTES
    bits, names = 0, list[str](DAYS)
    for day in days:
        bits |= ((1 << length) - 1) << (names.index(day) * _DAY_MINUTES + begin)
    week = 7 * _DAY_MINUTES
    return (bits | (bits >> week)) & ((1 << week) - 1)
