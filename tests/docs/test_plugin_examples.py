"""Run the example of each hook in docs/plugins.md as a plugin of a daemon."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.docs import pages
from tests.docs.test_hooks import HOOKS, TEXT
from trio.testing import MockClock

from distconv_plugins.webhook.plugin import signature_of
from distconvd.config import load_config
from distconvd.daemon import assemble
from distconvd.plugin_host.loading import Plugins
from distconvd.testing.daemon import KEY, open_daemon
from distconvd.testing.engine import VirtualEngine

JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}
Write = Callable[[str], str]


def example_of(hook: str) -> str:
    section = pages.section(TEXT, f"### {hook}")
    [block] = [b for b in pages.blocks(section) if b.language == "python"]
    return block.text


@pytest.fixture
def plugin(tmp_path: Path) -> Write:
    """Write the example of a hook as the file that a reader would write."""

    def write(hook: str) -> str:
        path = tmp_path / f"{hook}_example.py"
        path.write_text(example_of(hook), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_of_a_hook_implements_that_hook(hook: str, plugin: Write) -> None:
    listing = {p.name: p.hooks for p in Plugins([plugin(hook)]).listing()}
    assert listing[f"{hook}_example"] == [hook]


@pytest.mark.parametrize("hook", HOOKS)
def test_the_bundled_plugins_that_use_a_hook_are_documented(hook: str) -> None:
    using = {
        p.name
        for p in Plugins([]).listing()
        if hook in p.hooks and p.origin.startswith("distconv_plugins")
    }
    found = re.search(r"\*\*Used by\.\*\* (.*)", pages.section(TEXT, f"### {hook}"))
    assert found
    assert using, "a hook that nobody uses is not known to be of use"
    assert set(re.findall(r"`([\w-]+)`", found[1])) == using


async def test_the_settings_example_works(plugin: Write) -> None:
    name = plugin("distconvd_register_settings")
    async with open_daemon(plugins=[name], plugin={"lamp": {"colour": "blue"}}):
        pass


async def test_the_store_example_works(plugin: Write) -> None:
    config = load_config({"store": "scratch"}, {}).config
    parts = await assemble(config, Plugins([plugin("distconvd_register_stores")]))
    assert type(parts.store).__name__ == "Scratch"


async def test_the_policy_example_works(plugin: Write) -> None:
    name = plugin("distconvd_register_policies")
    async with open_daemon(plugins=[name], policy="gpu-first") as daemon:
        one = VirtualEngine(daemon, "e1", tags=["gpu"])
        await one.beat()
        for size, reason in ((2000, "a large job goes to the fastest GPU"), (1, "a small job")):
            await daemon.client.post("/jobs/", JOB | {"job_size": size})
            job = await one.must_ask()
            assert job["placement"].startswith(reason)
            await one.complete(job)


async def test_the_authenticator_example_works(plugin: Write) -> None:
    name = plugin("distconvd_register_authenticators")
    async with open_daemon(plugins=[name], auth="two-keys") as daemon:
        guest = daemon.client_with({"x-api-key": f"{KEY}-read"})
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
        assert (await guest.get("/jobs/")).status == 200
        assert (await guest.post("/jobs/", JOB)).status == 403
        assert (await daemon.anonymous.get("/jobs/")).status == 401
        assert (await daemon.client_with({"x-api-key": "no"}).get("/jobs/")).status == 401


async def test_the_route_example_works(plugin: Write) -> None:
    async with open_daemon(plugins=[plugin("distconvd_register_routes")]) as daemon:
        assert (await daemon.client.get("/hello/anna")).body == b"Hello, anna!\n"


async def test_the_service_example_works(plugin: Write) -> None:
    async with open_daemon(plugins=[plugin("distconvd_register_services")]) as daemon:
        one = VirtualEngine(daemon, "e1")
        await one.beat()
        await daemon.client.post("/jobs/", JOB)
        await one.complete(await one.must_ask(), "file:///done.mp4")
        small = await one.must_ask(wait_s=10)
        assert small["source_url"] == "file:///done.mp4"
        assert small["options"] == {"max_width": 320}
        await one.complete(small)
        assert await one.ask() is None


async def test_the_metrics_example_works(plugin: Write, autojump_clock: MockClock) -> None:
    async with open_daemon(plugins=[plugin("distconvd_register_metrics")]) as daemon:
        await VirtualEngine(daemon, "e1").beat()
        await trio.sleep(200)
        assert b"site_engines_lost_total 1.0" in (await daemon.client.get("/metrics")).body


async def test_the_review_example_works(plugin: Write) -> None:
    async with open_daemon(plugins=[plugin("distconvd_review_submission")]) as daemon:
        assert (await daemon.client.post("/jobs/", JOB | {"priority": 1})).status == 200
        refused = await daemon.client.post("/jobs/", JOB | {"priority": 2})
        assert (refused.status, refused.json()["field"]) == (400, "priority")


async def test_the_event_example_works(plugin: Write) -> None:
    name = plugin("distconvd_event")
    async with open_daemon(plugins=[name]) as daemon:
        await daemon.client.post("/jobs/", JOB)
    module = sys.modules["distconvd_plugin_distconvd_event_example"]
    assert module.SEEN == {"job.submitted": 1}


def test_the_documented_webhook_receiver_accepts_genuine_events_only(tmp_path: Path) -> None:
    section = pages.section(TEXT, "### Sending events")
    [block] = [b for b in pages.blocks(section) if b.language == "python"]
    path = tmp_path / "receiver.py"
    path.write_text(block.text)
    spec = importlib.util.spec_from_file_location("receiver", path)
    assert spec and spec.loader  # noqa: PT018
    receiver: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(receiver)
    secret, body = "a secret of sixteen", b"{}"
    signature = signature_of(secret, 1_700_000_000, body)
    assert receiver.is_genuine(secret, signature, body, 1_700_000_100)
    assert not receiver.is_genuine(secret, signature, body + b" ", 1_700_000_100)
    assert not receiver.is_genuine("another", signature, body, 1_700_000_100)
    assert not receiver.is_genuine(secret, signature, body, 1_700_001_000)


CONFIGURATIONS = [
    b.text for b in pages.blocks(TEXT) if b.language == "toml" and "[plugin." in b.text
] + [
    b.text for b in pages.blocks(TEXT) if b.language == "toml" and "[[plugin." in b.text
]  # fmt: skip


@pytest.mark.parametrize("text", dict.fromkeys(CONFIGURATIONS))
async def test_the_documented_configurations_start_a_daemon(text: str, tmp_path: Path) -> None:
    values = tomllib.loads(text)
    if "webhook" in values.get("plugin", {}):
        values["plugin"]["webhook"]["queue_file"] = str(tmp_path / "queue")
    async with open_daemon(**values) as daemon:
        names = {name for name, _ in daemon.parts.services}
        assert {"webhook", "exec"} & values["plugin"].keys() <= names


@pytest.mark.slow
def test_the_documented_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "gpu_first.py").write_text(example_of("distconvd_register_policies"))
    section = pages.section(TEXT, "## Testing a plugin")
    for language, name in (("python", "test_gpu_first.py"), ("ini", "pytest.ini")):
        [block] = [b for b in pages.blocks(section) if b.language == language]
        (tmp_path / name).write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_documented_kit_is_the_real_kit() -> None:
    import distconvd.testing

    documented = {
        name
        for cells in pages.table_cells(pages.section(TEXT, "## Testing a plugin"))
        for name in re.findall(r"`(\w+)`", cells[0])
    }
    assert distconvd.testing.__file__
    folder = Path(distconvd.testing.__file__).parent
    assert documented == {path.stem for path in folder.glob("*.py")} - {"__init__"}
