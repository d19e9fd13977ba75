"""Loading plugins: every error names the plugin, and stops only what it must."""

import logging
from pathlib import Path
from typing import Any

import pytest

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.errors import ConfigError
from distconvd.plugin_host.loading import Plugins
from distconvd.testing.daemon import open_daemon

HOOK = "from distconvd import hookimpl\n"


def plugin(tmp_path: Path, text: str, name: str = "mine.py") -> str:
    path = tmp_path / name
    path.write_text(HOOK + text)
    return str(path)


WRONG = [
    ("import nowhere_to_be_found", "cannot be loaded"),
    ("raise RuntimeError('at import')", "cannot be loaded"),
    ("def broken(:", "cannot be loaded"),
    ("@hookimpl\ndef distconvd_register_storess(registrar): ...", "'mine' is rejected"),
    ("@hookimpl\ndef distconvd_register_stores(registrar, more): ...", "'mine' is rejected"),
    ("@hookimpl(wrapper=True)\ndef distconvd_event(event):\n    yield", "hook wrapper"),
    ("DISTCONVD_HOOK_VERSION = 99", "needs hook version 99"),
    ("DISTCONVD_HOOK_VERSION = 'new'", "expected a whole number"),
]


@pytest.mark.parametrize("text,said", WRONG)
def test_a_faulty_wanted_plugin_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Plugins([plugin(tmp_path, text)])
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("name", ["nowhere/mine.py", "no_such_module", "mine.py"])
def test_a_missing_wanted_plugin_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Plugins([name])


def test_a_plugin_file_may_have_classes_whose_types_are_looked_up_later(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\n"
        + HOOK
        + (
            "import msgspec\n"
            "class Settings(msgspec.Struct):\n    size: Size\n"
            "class Size(msgspec.Struct):\n    mb: int = 1\n"
            "msgspec.convert({'size': {}}, Settings)\n"
        )
    )
    path = tmp_path / "later.py"
    path.write_text(text)
    assert "later" in {p.name for p in Plugins([str(path)]).listing()}


def test_a_plugin_can_be_named_once_only(tmp_path: Path) -> None:
    path = plugin(tmp_path, "")
    with pytest.raises(ConfigError, match="'mine' is rejected"):
        Plugins([path, path])


def test_a_duplicate_name_is_rejected_with_both_plugins_named(tmp_path: Path) -> None:
    text = (
        "@hookimpl\ndef distconvd_register_policies(registrar):\n"
        "    registrar.add('size-aware', None)\n"
    )
    loaded = Plugins([plugin(tmp_path, text)])
    with pytest.raises(ConfigError, match=r"size-aware.*which plugin"):
        loaded.collect("distconvd_register_policies", "policy")


def test_a_hook_that_fails_is_reported_with_its_plugin(tmp_path: Path) -> None:
    text = "@hookimpl\ndef distconvd_register_policies(registrar):\n    raise KeyError('x')\n"
    with pytest.raises(ConfigError, match="plugin 'mine' failed in distconvd_register_policies"):
        Plugins([plugin(tmp_path, text)]).collect("distconvd_register_policies", "policy")


def test_a_hook_may_name_only_the_arguments_that_it_wants(tmp_path: Path) -> None:
    text = (
        "@hookimpl\ndef distconvd_review_submission(caller):\n    return caller\n"
        "@hookimpl\ndef distconvd_event():\n    return 'received'\n"
    )
    loaded = Plugins([plugin(tmp_path, text)])
    review = dict(loaded.implementations("distconvd_review_submission"))["mine"]
    event = dict(loaded.implementations("distconvd_event"))["mine"]
    assert (review("job", "anna"), event("e")) == ("anna", "received")


def test_each_call_can_be_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISTCONV_TRACE_PLUGINS", "1")
    caplog.set_level(logging.INFO)
    text = "@hookimpl\ndef distconvd_event(event):\n    return 5\n"
    loaded = Plugins([plugin(tmp_path, text)])
    event = dict(loaded.implementations("distconvd_event"))["mine"]
    event(None)
    assert "trace distconvd_event of plugin mine answered 5" in caplog.text


ROUTES = """
from distconvd.edge.http import Response, Route

async def hello(request):
    return Response(200, b"{}")

@hookimpl
def distconvd_register_routes(registrar):
    registrar.add("mine", lambda context: [Route("GET", "PATTERN", hello, "public")])
"""


@pytest.mark.parametrize(
    "pattern,said",
    [
        (
            "/jobs/{other}",
            r"GET /jobs/\{other\} of the set of routes 'mine' is taken by 'distconvd'",
        ),
        ("/media/{x...}", "'media-store' is taken by 'mine'"),
        ("no-slash", "cannot be served"),
        ("/a/{b...}/c", "cannot be served"),
    ],
)
async def test_a_route_that_is_taken_or_malformed_stops_the_start(
    tmp_path: Path, pattern: str, said: str
) -> None:
    path = plugin(tmp_path, ROUTES.replace("PATTERN", pattern))
    with pytest.raises(ConfigError, match=said):
        async with open_daemon(plugins=[path]):
            pass


async def test_a_route_of_a_plugin_is_served(tmp_path: Path) -> None:
    path = plugin(tmp_path, ROUTES.replace("PATTERN", "/mine/{x}"))
    async with open_daemon(plugins=[path]) as daemon:
        assert (await daemon.anonymous.get("/api/v1/mine/5/")).body == b"{}"


@pytest.mark.parametrize(
    "setting,said",
    [
        ({"policy": "nosuch"}, "no policy 'nosuch'; installed: .*size-aware"),
        ({"auth": "nosuch"}, "no authenticator 'nosuch'; installed: api-key, key-file, none"),
        ({"plugin": {"size-aware": {"large_from_mb": 1}}}, "cannot be greater than large_from_mb"),
        ({"plugin": {"size-aware": {"colour": 1}}}, r"\[plugin.size-aware\].*colour"),
    ],
)
async def test_an_unknown_choice_is_rejected_with_the_valid_ones(
    setting: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        async with open_daemon(**setting):
            pass


def test_an_unknown_store_is_rejected_with_the_valid_ones() -> None:
    stores = Plugins([]).collect("distconvd_register_stores", "store")
    with pytest.raises(ConfigError, match="no store 'nosuch'; installed: json, memory, spool"):
        stores.pick("nosuch")


async def test_a_failed_start_releases_the_store() -> None:
    memory = Memory()
    with pytest.raises(ConfigError):
        async with open_daemon(store=MemoryStore(memory), auth="nosuch"):
            pass
    async with open_daemon(store=MemoryStore(memory)):
        pass
