"""The examples in docs/spool.md run, and its numbers are those of the code."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

import distconv_spool
from distconv_plugins.spool_intake.drops import CLAIMS_MAX
from distconv_plugins.spool_intake.plugin import SpoolSettings
from distconv_spool import DROP_BYTES_MAX, OLD_MAX, SCAN_MAX, Outcome, State, create
from distconv_spool.fields import to_json
from distconv_spool.layout import FOLDERS

TEXT = (Path(__file__).parents[2] / "docs" / "spool.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = create(tmp_path / "spool").root
    [example] = blocks("python")
    shown: list[object] = []

    def finished(*args: object, **kwargs: object) -> Outcome:
        return Outcome(State.FINISHED, "1753900000000000_1")

    code = example.replace("/var/spool/distconv", str(root))
    assert "import submit, wait" in code
    names = {"print": lambda *words: shown.extend(words)}
    monkeypatch.setattr(distconv_spool, "wait", finished)  # no daemon serves this spool
    exec(code, names)
    assert len(list((root / "incoming").iterdir())) == 1
    assert " ".join(str(word) for word in shown) == "FINISHED 1753900000000000_1"
    assert "# FINISHED 1753900000000000_1" in code


def test_the_toml_drop_in_the_docs_is_valid() -> None:
    assert b"source_url" in to_json("holiday.toml", blocks("toml")[0].encode())


def test_the_documented_settings_are_all_there_are() -> None:
    table = tomllib.loads(blocks("toml")[1])["plugin"]["spool-intake"]
    assert list(table) == list(SpoolSettings.__struct_fields__)
    msgspec.convert(table, SpoolSettings)
    for name in ("settle_s", "poll_s", "keep_days"):
        assert table[name] == getattr(SpoolSettings(), name)


def test_the_limits_and_folders_are_those_of_the_code() -> None:
    for number in (DROP_BYTES_MAX, SCAN_MAX, CLAIMS_MAX, OLD_MAX):
        assert f"| {number:,}" in TEXT
    for folder in FOLDERS:
        assert f"├── {folder}/" in TEXT or f"└── {folder}/" in TEXT
