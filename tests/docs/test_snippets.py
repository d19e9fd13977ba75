"""Check that the Python and TOML in the documents import, configure and name what exists."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest
from tests.docs import pages

from distconv_client.config import read_file
from distconv_plugins.hot_folder.settings import make_output_rule
from distconvd import hookspecs
from distconvd.api.decode import decode
from distconvd.config import load_config
from distconvd.dispatch.records import encode
from distconvd.model import Submission

BLOCKS = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page in pages.PAGES
    for block in pages.blocks(page.read_text(encoding="utf-8"))
    if block.language in ("python", "toml")
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_snippet_imports_and_sets_only_names_that_exist(
    block: pages.Block, tmp_path: Path
) -> None:
    if block.language == "python":
        check_imports(ast.parse(block.text))
    else:
        check_toml(block.text, tmp_path / "snippet.toml")


def check_imports(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def check_toml(text: str, path: Path) -> None:
    found = tomllib.loads(text)
    path.write_text(text, encoding="utf-8")
    if "server" in found:
        assert read_file(path) == found
    elif "source_url" in found:
        assert decode(encode(found), Submission).source_url == found["source_url"]
    elif "output" in found and "options" in found:  # the settings of a hot folder
        assert make_output_rule(Path("/srv/watch"), "h265", text.encode()).settings.output
    elif "project" in found:
        assert list(found["project"]["entry-points"]) == [hookspecs.PROJECT]
    else:
        config = load_config({"config": str(path)}, {}).config
        assert all(getattr(config, name) == found[name] for name in found if name != "dispatch")


def test_the_types_of_the_factories_are_those_of_the_page() -> None:
    shown = [
        b.text for b in pages.blocks(pages.read("docs/plugins.md")) if "StoreFactory =" in b.text
    ]
    source = pages.read("distconvd/distconvd/hookspecs.py")
    for line in shown[0].splitlines():
        assert line in source
