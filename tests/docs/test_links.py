"""Check that the links between documents resolve."""

import re
from pathlib import Path

import pytest
from tests.docs import pages


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_heading_resolves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in pages.links(text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        if anchor:
            assert anchor in pages.anchors(place.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_no_page_refers_to_a_missing_document(page: Path) -> None:
    for name in re.findall(r"docs/\w+\.md", page.read_text(encoding="utf-8")):
        assert (pages.ROOT / name).is_file(), name


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_every_repository_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8").partition("\n## Not yet\n")[0]
    named = re.findall(
        r"`((?:tests|tools|plugins|distconvd|engine|client|spool|bench|contrib)/[\w./-]*)`", text
    )
    assert [name for name in named if not (pages.ROOT / name).exists()] == []


ROOTS = {
    "D": "distconvd/distconvd",
    "E": "engine/distconv_engine",
    "P": "plugins/distconv_plugins",
    "C": "client/distconv_client",
}


def test_where_do_i_change_names_only_paths_that_exist() -> None:
    table = pages.section(pages.read("CONTRIBUTING.md"), "## Where do I change …")
    paths = [f"{ROOTS[root]}/{path}" for root, path in re.findall(r"`([DEPC])/([\w./]*)`", table)]
    assert len(paths) > 20
    assert [path for path in paths if not (pages.ROOT / path).exists()] == []
