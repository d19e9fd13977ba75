"""Check that docs/plugins.md documents every hook with its signature, and run its example."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs import pages

from distconvd import hookspecs
from distconvd.config import Config
from distconvd.daemon import assemble
from distconvd.dispatch import Event
from distconvd.errors import BadRequest
from distconvd.model import Job, Submission
from distconvd.plugin_host.loading import Plugins
from distconvd.policy import EngineInfo, Hold, Place

TEXT = pages.read("docs/plugins.md")
HOOKS = {name: f for name, f in vars(hookspecs).items() if name.startswith("distconvd_")}
_SIGNATURE = re.compile(r"^(distconvd_\w+)(\(.*\) -> .+)$", re.MULTILINE)


def signature_of(name: str) -> str:
    """Return a hook's signature as it is written in hookspecs.py, on one line."""
    source = inspect.getsource(HOOKS[name])
    found = re.search(r"def \w+(\(.*?\) -> [^:]+):", source, re.DOTALL)
    assert found
    return re.sub(r"\s+", " ", found[1]).replace("( ", "(").replace(" )", ")")


def test_every_hook_is_documented_with_its_signature_and_no_other() -> None:
    shown = "\n".join(b.text for b in pages.blocks(TEXT) if b.language == "text")
    assert dict(_SIGNATURE.findall(shown)) == {name: signature_of(name) for name in HOOKS}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_section_that_says_when_it_is_called_and_what_raising_does(
    name: str,
) -> None:
    section = pages.section(TEXT, f"### {name}")
    for word in ("**When.**", "**Arguments.**", "**Returns.**", "**Raising.**"):
        assert word in section, word


def test_every_kind_of_event_is_documented() -> None:
    from typing import get_args

    from distconvd.dispatch.decision import EventKind

    section = pages.section(TEXT, "### distconvd_event")
    assert [kind for kind in get_args(EventKind) if f"`{kind}`" not in section] == []


def test_the_documented_bundled_plugins_are_the_real_ones() -> None:
    documented = {
        cells[0].strip("`")
        for cells in pages.table_cells(pages.section(TEXT, "## Bundled plugins"))
    }
    loaded = {p.name for p in Plugins([]).listing() if p.origin.startswith("distconv_plugins")}
    assert documented - {"plugin"} == loaded


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The page's worked example, as the file that a reader would write."""
    block = next(b for b in pages.blocks(TEXT) if b.language == "python" and "hookimpl" in b.text)
    path = tmp_path / "night_shift.py"
    path.write_text(block.text, encoding="utf-8")
    return path


class _Engines:
    """Two idle engines: `IdleEngines`."""

    def __init__(self) -> None:
        self.infos = [
            EngineInfo("fast", 1.0, streaming=False, tags=frozenset(), slots=1, held=0),
            EngineInfo("slow", 9.0, streaming=False, tags=frozenset(), slots=1, held=0),
        ]

    def fastest(self, *, streaming: bool = False) -> EngineInfo | None:
        return None if streaming else self.infos[0]

    def slowest(self) -> EngineInfo | None:
        return self.infos[1]

    def get(self, engine_id: str) -> EngineInfo | None:
        return next((one for one in self.infos if one.engine_id == engine_id), None)

    def asking(self) -> EngineInfo | None:
        return None

    def __iter__(self) -> Iterator[EngineInfo]:
        return iter(self.infos)


async def test_the_example_runs_in_a_daemon(example: Path, tmp_path: Path) -> None:
    config = Config(
        store="memory",
        policy="night-shift",
        state_file=str(tmp_path / "state.json"),
        plugin={"night-shift": {"batch_from_hour": 0, "batch_until_hour": 0}},
    )
    plugins = Plugins([str(example)])
    parts = await assemble(config, plugins)
    assert {p.name: p.hooks for p in plugins.listing()}["night_shift"] == [
        "distconvd_event",
        "distconvd_register_policies",
        "distconvd_review_submission",
    ]
    policy = parts.dispatcher.policy.policy
    engines = _Engines()
    urgent = Job("1_0", "file:///a", "av1", priority=2)
    batch = Job("1_1", "file:///a", "av1", labels={"batch": "yes"})
    placed = policy.place(urgent, engines, 0)
    assert placed == Place("fast", "no batch job: the fastest idle engine")
    assert isinstance(policy.place(batch, engines, 0), Hold)


def test_the_example_reviews_and_receives_events_as_the_page_says(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = Plugins([str(example)])
    review = dict(plugins.implementations("distconvd_review_submission"))["night_shift"]
    submission = Submission("file:///a.mov", "av1")
    assert review(submission, "anna").labels == {"submitted_by": "anna"}
    with pytest.raises(BadRequest) as refused:
        review(Submission("file:///a.mov", "mpeg2video"), "anna")
    assert refused.value.field == "target_codec"
    listener = dict(plugins.implementations("distconvd_event"))["night_shift"]
    listener(Event("job.failed", 1, job_id="1_0", reason="no such file"))
    listener(Event("job.submitted", 1, job_id="1_0"))
    documented = capsys.readouterr().err.splitlines()
    assert [json.loads(line) for line in documented] == [{"failed": "1_0", "why": "no such file"}]
