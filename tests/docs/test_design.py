"""Check that docs/design.md gives a reason for every dependency and names every package."""

import re
import tomllib

import pytest
from tests.docs import pages

TEXT = pages.read("docs/design.md")
PROJECT = tomllib.loads(pages.read("pyproject.toml"))


def wanted_packages() -> set[str]:
    project = PROJECT["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    lines += PROJECT["tool"]["distconv"]["lock"]["data-only"]
    return {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in lines}


def test_every_dependency_is_named_with_its_reason_and_no_other() -> None:
    named: set[str] = set()
    for cells in pages.table_cells(pages.section(TEXT, "## Dependencies")):
        assert all(cells), cells
        named |= {name.strip() for name in cells[0].split(",")}
    assert named - {"package"} == wanted_packages()


@pytest.mark.parametrize(
    "package", ["distconvd/distconvd", "engine/distconv_engine", "plugins/distconv_plugins"]
)
def test_every_package_and_module_at_the_top_is_in_the_drawing(package: str) -> None:
    root = pages.ROOT / package
    there = {path.stem for path in root.iterdir() if path.suffix == ".py" or path.is_dir()}
    there -= {"__init__", "__pycache__", "py"}
    named = set(re.findall(r"\w+", pages.section(TEXT, "### Packages")))
    assert there - named == set()
