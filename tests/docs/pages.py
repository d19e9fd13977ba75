"""The documents as data: their fenced blocks, headings and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "contrib").glob("*/*.md")]
)

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line that it begins on."""

    language: str
    text: str
    line: int


@cache
def read(name: str) -> str:
    """Return a document by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(text)
    ]


def prose(text: str) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", text)


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    level, plain = heading.split(" ", 1)
    begin = re.search(rf"^{level} {re.escape(plain)}$", text, re.MULTILINE)
    assert begin, f"no heading {heading!r}"
    rest = text[begin.end() :]
    end = re.search(rf"^#{{1,{len(level)}}} ", _FENCE.sub(_blank, rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def table_cells(text: str) -> Iterator[list[str]]:
    """Yield the cells of each table row, without the rules below the heads."""
    for row in _ROW.finditer(prose(text)):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row[1])]
        if not all(set(cell) <= set("-: ") for cell in cells):
            yield cells


def links(text: str) -> list[str]:
    """Return the targets of all links."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    found = (heading.replace("`", "") for heading in _HEADING.findall(prose(text)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def _blank(found: re.Match[str]) -> str:
    """Return as many characters as a block has, but nothing that looks like a heading."""
    return re.sub(r"[^\n]", " ", found[0])
