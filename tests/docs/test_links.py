"""Links between the documents lead somewhere."""

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
def test_no_page_refers_to_a_document_that_is_not_there(page: Path) -> None:
    for name in re.findall(r"docs/\w+\.md", page.read_text(encoding="utf-8")):
        assert (pages.ROOT / name).is_file(), name


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8").partition("\n## Not yet\n")[0]
    named = re.findall(
        r"`((?:tests|tools|plugins|distconvd|engine|client|spool|bench|contrib)/[\w./-]*)`", text
    )
    assert [name for name in named if not (pages.ROOT / name).exists()] == []
