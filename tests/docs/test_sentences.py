"""Check that the programs print the sentences that the user guide quotes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs import pages

GUIDE = pages.read("docs/user_guide.md")
FRAGMENT_CHARS_MIN = 6
SOURCES = [
    path
    for package in ("distconvd/distconvd", "engine/distconv_engine", "plugins/distconv_plugins")
    for path in (pages.ROOT / package).rglob("*.py")
]


def literals(path: Path) -> Iterator[str]:
    """Yield the texts in a module except docstrings, with `…` for inserted values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if node in docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def fragments(quoted: str) -> list[str]:
    """Return the parts of a quoted sentence between its `…` that are long enough to search for."""
    parts = (part.strip(" .:") for part in re.split(r"…|\.\.\.", quoted.replace("`", "")))
    return [part for part in parts if len(part) >= FRAGMENT_CHARS_MIN]


def first_cells(heading: str) -> list[str]:
    return [cells[0] for cells in pages.table_cells(pages.section(GUIDE, heading))][1:]


@pytest.mark.parametrize("sentence", first_cells("## A job is stuck: what now"))
def test_every_sentence_that_the_guide_explains_is_one_of_why(sentence: str) -> None:
    said = list(literals(pages.ROOT / "distconvd/distconvd/dispatch/why.py"))
    assert fragments(sentence)
    for fragment in fragments(sentence):
        assert any(fragment in text for text in said), fragment


def test_the_guide_explains_every_sentence_of_why() -> None:
    explained = " ".join(first_cells("## A job is stuck: what now"))
    path = pages.ROOT / "distconvd/distconvd/dispatch/why.py"
    sentences = [text for text in literals(path) if re.fullmatch(r"[A-Z…].{12,}\.", text)]
    # What needs no explanation: the job has ended, and why answers with how.
    ended = ("It is done", "Somebody cancelled", "It failed after")
    for sentence in sentences:
        if not sentence.startswith(ended):
            assert any(part in explained for part in fragments(sentence)), sentence


MESSAGES = [
    message
    for cell in first_cells("## Troubleshooting")
    for message in re.findall(r"`([^`]{12,})`", cell)
    if not message.startswith("distconvd ")
]


@pytest.fixture(scope="module")
def all_said() -> str:
    return "\n".join(text for path in SOURCES for text in literals(path))


@pytest.mark.slow
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_quoted_in_the_guide_is_printed_by_a_program(message: str, all_said: str) -> None:
    assert fragments(message)
    for fragment in fragments(message):
        assert fragment in all_said
