"""Compare a reply that a document shows with a real one.

Made-up values are not compared: ids, times, versions, and what depends on the machine. From its
first appearance in a reply, an id in a document stands for the real one, so a page can be played
from top to bottom. A member `"…": "…"` stands for further
fields, an element `"…"` for further elements.
"""

import json
import re
from typing import Any

MORE = "…"
_ID = re.compile(r"\d{13,}_\d+|[0-9a-f]{16}(?![0-9a-f])")
"""A job's id, or an ETag."""
_TIMES = re.compile(r"_at$|^not_before$|^quarantined_until$")
_MADE_UP = frozenset(
    {
        *("request_id", "version", "uptime_s", "oldest_s", "lease_left_s", "path", "free_gb"),
        "cpu_percent",
    }
)


class Shown:
    """The ids of one page."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def made_real(self, text: str) -> str:
        """Return a command or text of the page with real ids."""
        return _ID.sub(lambda found: self._real.get(found[0], found[0]), text)

    def differences(self, shown: Any, real: Any, at: str = "") -> list[str]:
        """Return the differences between a real reply and the page."""
        if isinstance(shown, dict) and isinstance(real, dict):
            return self._differences_of_objects(shown, real, at)
        if isinstance(shown, list) and isinstance(real, list):
            return self._differences_of_lists(shown, real, at)
        name = at.rpartition(".")[2]
        if _TIMES.search(name) or name in _MADE_UP:
            return [] if type(shown) is type(real) else [f"{at}: {shown!r} shown, {real!r} came"]
        if isinstance(shown, str) and isinstance(real, str):
            self.learn(shown, real)
            shown = self.made_real(shown)
        same = shown == real and isinstance(shown, bool) == isinstance(real, bool)
        return [] if same else [f"{at}: {shown!r} shown, {real!r} came"]

    def _differences_of_objects(
        self, shown: dict[str, Any], real: dict[str, Any], at: str
    ) -> list[str]:
        found = [
            f"{at}.{key}: shown, but did not come" for key in shown.keys() - real.keys() - {MORE}
        ]
        if MORE not in shown:
            found += [f"{at}.{key}: came, but is not shown" for key in real.keys() - shown.keys()]
        for key in shown:
            if key in real:
                found += self.differences(shown[key], real[key], f"{at}.{key}")
        return found

    def _differences_of_lists(self, shown: list[Any], real: list[Any], at: str) -> list[str]:
        wanted = [one for one in shown if one != MORE]
        if len(wanted) > len(real) or (len(wanted) < len(real) and MORE not in shown):
            return [f"{at}: {len(wanted)} elements shown, {len(real)} came"]
        pairs = enumerate(zip(wanted, real, strict=False))
        return [d for i, (one, other) in pairs for d in self.differences(one, other, f"{at}[{i}]")]

    def learn(self, shown: str, real: str) -> None:
        """Note what a made-up id stands for, if this is one."""
        if _ID.fullmatch(shown.strip('"')) and _ID.fullmatch(real.strip('"')):
            self._real.setdefault(shown.strip('"'), real.strip('"'))


def parse_http(text: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers (by lower-case name) and body of a reply as `curl -i` prints it."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    if head.startswith("HTTP/1.1 100"):
        return parse_http(body)
    first, *rest = head.splitlines()
    pairs = (line.partition(":") for line in rest)
    return int(first.split()[1]), {n.strip().lower(): v.strip() for n, _, v in pairs}, body


def is_json(text: str) -> bool:
    """Return whether a text is a JSON document."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
