"""Check that docs/protocol.md documents every route, bound and error, and no other."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import httpx
import pytest
import trio
from tests.docs import pages
from tests.docs.conftest import KEY, Daemon
from tests.docs.shown import Shown
from trio_websocket import open_websocket_url

import distconv_plugins.media_store.plugin
from distconv_plugins.media_store.names import SEGMENT_BYTES_MAX, SEGMENTS_MAX
from distconvd import daemon
from distconvd.api.batch import LINES_MAX
from distconvd.api.openapi.jobs import PAGE_MAX
from distconvd.api.replies import WAIT_S_MAX
from distconvd.config import Config, EdgeSettings
from distconvd.dispatch import DispatchSettings
from distconvd.dispatch.lifecycle import drawing
from distconvd.dispatch.queries import SCAN_MAX
from distconvd.dispatch.settings import HISTORY_MAX
from distconvd.dispatch.why import Why
from distconvd.edge.app import App
from distconvd.edge.http import Route
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.problems import type_of
from distconvd.edge.target import QUERY_FIELDS_MAX
from distconvd.errors import CallerError, DaemonError, DistconvError
from distconvd.model import (
    CODECS,
    CONTAINERS,
    AssignRequest,
    BenchmarkReport,
    CompleteReport,
    EngineRecord,
    FailReport,
    Heartbeat,
    Job,
    JobPatch,
    JobResult,
    Limits,
    ProgressReport,
    ReleaseReport,
    Submission,
    TranscodeOptions,
    push,
)
from distconvd.model.capability import capability_table
from distconvd.model.failure import failure_table
from distconvd.plugin_host.loading import Plugins
from distconvd.push import PushLimits

TEXT = pages.read("docs/protocol.md")
ABSTRACT = {DistconvError, CallerError, DaemonError}


def shown_path(route: Route) -> str:
    """Return a route as the document writes it."""
    path = route.pattern.replace("{job_id}", "{id}").replace("{engine_id}", "{id}")
    is_listing = path in ("/jobs", "/engines", "/assign_job")
    return f"{route.method} {path}{'/' if is_listing else ''}"


@pytest.fixture
async def routes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Route]:
    """The route table of a whole daemon."""
    found: list[Route] = []

    class Spy(App):
        def __init__(self, routes: list[Route], *args: object, **kwargs: object) -> None:
            found[:] = routes
            super().__init__(routes, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(daemon, "App", Spy)
    config = Config(store="memory", state_file=str(tmp_path / "state.json"))
    await daemon.assemble(config, Plugins([]))
    return found


async def test_every_route_has_a_heading_and_every_heading_a_route(routes: list[Route]) -> None:
    headings = {
        line.removeprefix("### ")
        for line in pages.prose(TEXT).splitlines()
        if line.startswith("### ") and " /" in line
    }
    assert headings == {shown_path(route) for route in routes}


async def test_the_table_of_endpoints_documents_every_route_and_its_role(
    routes: list[Route],
) -> None:
    rows = {
        cells[0].strip("`"): cells[2]
        for cells in pages.table_cells(TEXT)
        if len(cells) == 3 and " /" in cells[0] and cells[0].startswith("`")
    }
    assert rows == {
        shown_path(route): "none" if route.role == "public" else route.role for route in routes
    }


def test_the_lifecycles_are_drawn_from_the_tables() -> None:
    assert drawing() in [block.text for block in pages.blocks(TEXT)]


def test_the_failure_classes_are_drawn_from_their_table() -> None:
    assert failure_table() in TEXT


def test_the_capabilities_are_drawn_from_their_table() -> None:
    assert capability_table() in TEXT


def number(text: str) -> float:
    return float(text.replace(",", ""))


def bounds(section: str) -> dict[str, float]:
    """Return name and value of each row of a table of limits."""
    return {
        cells[0].strip("`"): number(cells[1])
        for cells in pages.table_cells(section)
        if cells[0].startswith("`")
    }


def test_every_limit_is_documented_with_its_value() -> None:
    messages, _, rest = pages.section(TEXT, "## Limits").partition("The edge:")
    edge, _, websocket = rest.partition("A websocket:")
    limits = {name: value for name, value in vars(Limits).items() if not name.startswith("_")}
    assert bounds(messages) == limits
    assert bounds(edge) == {field.name: field.default for field in fields(EdgeLimits)}
    assert bounds(websocket) == {field.name: field.default for field in fields(PushLimits)}


def test_every_message_and_close_code_of_the_websocket_is_documented() -> None:
    section = pages.section(TEXT, "### GET /engines/{id}/ws")
    tags = [
        tag
        for kind in (*get_args(push.FromEngine), *get_args(push.ToEngine))
        if isinstance(tag := kind.__struct_config__.tag, str)
    ]
    assert len(tags) == 11
    assert [tag for tag in tags if f"`{tag}`" not in section] == []
    documented = {cells[0] for cells in pages.table_cells(section) if cells[0].isdigit()}
    codes = {value for name, value in vars(push).items() if name.startswith("CLOSE_")}
    assert documented == {str(code) for code in codes - {push.CLOSE_GOING_AWAY}}


@pytest.mark.e2e
async def test_the_documented_websocket_conversation_is_the_real_one(
    start_daemon: Callable[..., Daemon],
) -> None:
    daemon = start_daemon()
    lines = next(b.text for b in pages.blocks(TEXT) if b.text.startswith("engine: {"))
    url = f"127.0.0.1:{daemon.port}"
    async with httpx.AsyncClient(base_url=f"http://{url}", headers={"X-API-Key": KEY}) as client:
        job = {"source_url": "file:///srv/media/a.mov", "target_codec": "vp9"}
        assert (await client.post("/jobs/", json=job)).status_code == 200
    shown = Shown()
    with trio.fail_after(10):
        async with open_websocket_url(
            f"ws://{url}/engines/engine-002/ws",
            subprotocols=[push.SUBPROTOCOL],
            extra_headers=[(b"X-API-Key", KEY.encode())],
        ) as socket:
            for turn in lines.split("engine: ")[1:]:
                said, *answers = turn.splitlines()
                await socket.send_message(shown.made_real(said))
                wanted = [json.loads(answer.removeprefix("daemon: ")) for answer in answers]
                came = [json.loads(await socket.get_message()) for _ in wanted]
                came.sort(key=lambda message: str(message["type"]))  # they come in any order
                assert shown.differences(wanted, came) == []


def test_the_documented_defaults_of_the_edge_are_the_real_ones() -> None:
    defaults = {field.name: field.default for field in fields(EdgeLimits)}
    settings = EdgeSettings()
    for name in settings.__struct_fields__:
        assert getattr(settings, name) == defaults[name], name


def errors(kind: type[DistconvError] = DistconvError) -> Iterator[type[DistconvError]]:
    for child in kind.__subclasses__():
        yield child
        yield from errors(child)


def test_every_error_is_documented_with_its_status_and_type() -> None:
    assert distconv_plugins.media_store.plugin.DigestMismatch in set(errors())
    documented = {
        (int(cells[0]), "urn:distconv:problem:" + cells[1].strip("`"))
        for cells in pages.table_cells(pages.section(TEXT, "## Errors"))
        if cells[0].isdigit()
    }
    ours = {kind for kind in errors() if kind.__module__.startswith(("distconvd.", "distconv_p"))}
    assert documented == {(kind.status, type_of(kind)) for kind in ours - ABSTRACT}


@pytest.mark.parametrize(
    "kind, heading",
    [
        (Job, "### Job"),
        (Submission, "### Submission"),
        (TranscodeOptions, "### Options"),
        (JobResult, "### Result"),
        (EngineRecord, "### Engine"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_every_field_of_a_record_is_documented(kind: type, heading: str) -> None:
    documented = pages.section(TEXT, heading)
    missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in documented]  # type: ignore[attr-defined]
    assert missing == []


def test_the_table_of_codecs_is_the_one_that_daemon_and_engine_use() -> None:
    documented = {
        cells[0].strip("`"): [cell.replace("`", "") for cell in cells[1:]]
        for cells in pages.table_cells(pages.section(TEXT, "### Options"))
        if len(cells) == 8 and cells[0] != "codec"
    }
    assert documented == {
        name: [
            ", ".join(row.encoders),
            ", ".join(row.containers),
            f"{row.crf[0]} to {row.crf[-1]} ({row.crf_default})",
            f"{words(row.presets)} ({row.preset_default})",
            words(row.tunes),
            "yes" if row.two_pass else "no",
            str(row.bitrate_kbps_max),
        ]
        for name, row in CODECS.items()
    }


def words(known: tuple[str, ...]) -> str:
    """Return a list of words as the table shows it, one of numbers as its ends."""
    if known and all(word.isdigit() for word in known):
        return f"{known[0]} to {known[-1]}"
    return ", ".join(known) or "–"


def test_the_table_of_containers_is_the_one_that_daemon_and_engine_use() -> None:
    documented = {
        cells[0].strip("`"): cells[1:]
        for cells in pages.table_cells(pages.section(TEXT, "### Options"))
        if len(cells) == 4 and cells[0] != "container"
    }
    assert documented == {
        name: [", ".join(sorted(row.video)), ", ".join(row.audio), "yes" if row.faststart else "no"]
        for name, row in CONTAINERS.items()
    }


def test_the_defaults_of_a_submission_are_documented() -> None:
    documented = {
        cells[0].strip("`"): cells[2].strip("`")
        for cells in pages.table_cells(pages.section(TEXT, "### Submission"))
        if len(cells) == 4
    }
    job = Submission("", "")
    for name in ("job_size", "max_retries", "priority"):
        assert documented[name] == str(getattr(job, name)), name


@pytest.mark.parametrize(
    "kind, heading",
    [
        (Heartbeat, "### POST /engines/heartbeat"),
        (BenchmarkReport, "### POST /engines/benchmark_result"),
        (AssignRequest, "### POST /assign_job/"),
        (ProgressReport, "### POST /jobs/{id}/progress"),
        (CompleteReport, "### POST /jobs/{id}/complete"),
        (FailReport, "### POST /jobs/{id}/fail"),
        (ReleaseReport, "### POST /jobs/{id}/release"),
        (JobPatch, "### PATCH /jobs/{id}"),
        (Why, "### GET /jobs/{id}/why"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_every_field_of_a_message_is_documented_with_its_endpoint(kind: type, heading: str) -> None:
    documented = pages.section(TEXT, heading)
    names: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    missing = [
        name for name in names if f"`{name}`" not in documented and f'"{name}"' not in documented
    ]
    assert missing == []


@pytest.mark.parametrize(
    "sentence",
    [
        f"up\n  to N seconds, at most {WAIT_S_MAX:g}.",
        f"a long poll lasts at most {WAIT_S_MAX:g} s",
        f"a page has at most {PAGE_MAX} jobs",
        f"at\nmost {LINES_MAX} lines",
        f"A query has at most {QUERY_FIELDS_MAX} fields",
        f"no more than\n{SCAN_MAX:,} jobs are looked at",
        f"The last {HISTORY_MAX} are kept.",
        f"Names have 1 to {SEGMENTS_MAX} segments of\nup to {SEGMENT_BYTES_MAX} bytes",
    ],
)
def test_a_documented_bound_is_the_real_one(sentence: str) -> None:
    assert re.sub(r"\s+", " ", sentence) in re.sub(r"\s+", " ", TEXT)


def test_a_documented_setting_value_is_the_real_one() -> None:
    settings = DispatchSettings()
    named = re.findall(r"`(?:dispatch\.)?(\w+)` \(([\d,]+)(?: s)?\)", TEXT)
    named += [(name, value) for value, name in re.findall(r"([\d,]+) \(`(\w+)`\)", TEXT)]
    named += [(name, value) for value, name in re.findall(r"beyond ([\d,]+)\s+\(`(\w+)`\)", TEXT)]
    documented = {name: number(value) for name, value in named if hasattr(settings, name)}
    assert len(documented) >= 6
    assert documented == {name: getattr(settings, name) for name in documented}
