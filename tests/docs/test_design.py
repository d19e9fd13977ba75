"""docs/design.md gives a reason for every dependency, and knows every room of the house."""

import re
import tomllib

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


def test_every_room_of_the_daemon_is_in_the_list_of_rooms() -> None:
    root = pages.ROOT / "distconvd" / "distconvd"
    rooms = {path.stem for path in root.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__init__", "__pycache__", "py"}
    told = set(re.findall(r"\w+", pages.section(TEXT, "### Rooms of the daemon")))
    assert rooms - told == set()
