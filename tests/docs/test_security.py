"""docs/security.md names a test for each threat that it calls defended, and every role."""

import re
from pathlib import Path

import pytest

from distconvd.auth import ALL_ROLES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("row", rows_of("What is defended"), ids=lambda row: row[0])
def test_each_defence_names_a_test_that_exists(row: list[str]) -> None:
    _threat, _defence, tests = row
    named = re.findall(r"`([^`]+)`", tests)
    assert named
    for test in named:
        path, _, function = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not function or re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), test


def test_the_table_of_roles_has_every_role() -> None:
    assert {row[0].strip("`") for row in rows_of("What each role may do")} == ALL_ROLES
