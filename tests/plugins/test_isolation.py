"""A faulty plugin is rejected or isolated, and named, and never harms the daemon."""

import logging
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.plugins.kit import HEAD, JOB, Write, stuck

from distconvd.config import load_config
from distconvd.daemon import assemble
from distconvd.errors import ConfigError
from distconvd.faults import reraise_if_cancelled
from distconvd.main import main
from distconvd.plugin_host import loading, watchdog
from distconvd.plugin_host.loading import Plugins
from distconvd.plugin_host.services import plain_refusals
from distconvd.plugin_host.watchdog import HookWatch
from distconvd.testing.daemon import Daemon, open_daemon
from distconvd.testing.engine import VirtualEngine


async def metric(daemon: Daemon, name: str) -> float:
    text = (await daemon.client.get("/metrics")).body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def assert_policy_overruled(daemon: Daemon) -> None:
    """Let a job be placed; check that the default policy did it and the failure is counted."""
    one = VirtualEngine(daemon, "e1")
    await one.beat()
    await daemon.client.post("/jobs/", JOB)
    assert "a small job" in (await one.must_ask())["placement"]
    assert await metric(daemon, "distconv_policy_failures_total") == 1


# ------------------------------------------------------------------------ refused at the start

REGISTRATIONS = """
def make(*args): return {answer}
@hookimpl
def distconvd_register_{hook}(registrar): registrar.add("mine", make)
"""


@pytest.mark.parametrize("answer", ["None", "42", "object()", "1/0", "exit()"])
@pytest.mark.parametrize(
    "kind, hook, chosen",
    [
        ("store", "stores", {"store": "mine"}),
        ("policy", "policies", {"policy": "mine"}),
        ("authenticator", "authenticators", {"auth": "mine"}),
        ("service", "services", {}),
        ("set of routes", "routes", {}),
    ],
)
async def test_a_factory_that_returns_nonsense_stops_the_start_and_is_named(
    plugin: Write, kind: str, hook: str, chosen: dict[str, Any], answer: str
) -> None:
    if kind == "service" and answer == "None":
        pytest.skip("a service may say that it is not in this configuration")
    name = plugin(REGISTRATIONS.format(hook=hook, answer=answer))
    with pytest.raises(ConfigError, match=f"the {kind} 'mine'"):
        await assemble(load_config({"store": "memory", **chosen}, {}).config, Plugins([name]))


@pytest.mark.parametrize("answer", ["[42]", "'GET /x'", "()"])
async def test_invalid_routes_stop_the_start_and_are_named(plugin: Write, answer: str) -> None:
    name = plugin(REGISTRATIONS.format(hook="routes", answer=answer))
    with pytest.raises(ConfigError, match="the set of routes 'mine'"):
        async with open_daemon(plugins=[name]):
            pass


@pytest.mark.parametrize("hook", ["stores", "policies", "authenticators", "routes", "services"])
async def test_a_registration_that_raises_stops_the_start_and_is_named(
    plugin: Write, hook: str
) -> None:
    name = plugin(f"@hookimpl\ndef distconvd_register_{hook}(registrar): exit('no')")
    with pytest.raises(ConfigError, match=f"plugin 'mine' failed in distconvd_register_{hook}"):
        async with open_daemon(plugins=[name]):
            pass


async def test_a_name_that_a_bundled_plugin_has_is_refused_with_both_named(plugin: Write) -> None:
    text = "@hookimpl\ndef distconvd_register_policies(registrar): registrar.add('fifo', None)"
    with pytest.raises(ConfigError, match="registers the policy 'fifo'") as refused:
        async with open_daemon(plugins=[plugin(text)]):
            pass
    assert "plugin 'mine'" in str(refused.value)
    assert "plugin 'fifo'" in str(refused.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("exit(3)", "SystemExit"),
        ("raise type('Panic', (BaseException,), {})('oh')", "Panic"),
        ("DISTCONVD_HOOK_VERSION = 99", "upgrade distconv"),
        ("@hookimpl\ndef distconvd_evnet(event): ...", "distconvd_evnet"),
    ],
)
def test_a_file_that_cannot_be_loaded_stops_the_start_and_says_why(
    plugin: Write, text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Plugins([plugin(text)])
    assert "mine" in str(refused.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("import no_such_dependency", "no_such_dependency"),
        ("exit(3)", "SystemExit"),
        ("raise type('Panic', (BaseException,), {})('oh')", "Panic"),
        ("DISTCONVD_HOOK_VERSION = 99", "needs hook version 99"),
        ("@hookimpl\ndef distconvd_evnet(event): ...", "distconvd_evnet"),
    ],
)
def test_an_installed_package_that_cannot_be_loaded_is_left_out_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    text: str, said: str,
) -> None:  # fmt: skip
    (tmp_path / "a_broken_package.py").write_text(HEAD + text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_broken_package", raising=False)
    real = metadata.entry_points(group="distconvd")
    broken = metadata.EntryPoint("broken", "a_broken_package", "distconvd")
    monkeypatch.setattr(loading, "entry_points", lambda group: [broken, *real])
    found = {one.name for one in Plugins([]).listing()}
    assert "broken" not in found
    assert "size-aware" in found
    assert "left out" in caplog.text
    assert "broken" in caplog.text
    assert said in caplog.text


# --------------------------------------------------------------------------- isolated in service


async def test_a_policy_that_fails_is_overruled_for_that_job_named_and_counted(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(
        "class Policy:\n    name = 'mine'\n"
        "    def place(self, job, engines, now_ms): raise RuntimeError('oh no')\n"
        + REGISTRATIONS.format(hook="policies", answer="Policy()")
    )
    async with open_daemon(plugins=[name], policy="mine") as daemon:
        await assert_policy_overruled(daemon)
    assert "policy mine failed" in caplog.text
    assert "oh no" in caplog.text


async def test_an_authenticator_that_answers_nonsense_lets_nobody_in(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    for answer in ("'anna'", "None", "True", "1/0"):
        name = plugin(
            f"class Auth:\n    def authenticate(self, key, peer): return {answer}\n"
            + REGISTRATIONS.format(hook="authenticators", answer="Auth()")
        )
        async with open_daemon(plugins=[name], auth="mine") as daemon:
            assert (await daemon.client.get("/jobs/")).status == 500
            assert (await daemon.client.get("/livez")).status == 200
        assert "the authenticator mine of plugin mine failed" in caplog.text
        caplog.clear()


async def test_a_failing_review_affects_only_its_request_and_a_failing_listener_nothing(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(
        "@hookimpl\ndef distconvd_review_submission(submission):\n"
        "    if submission.target_codec == 'vp9': raise RuntimeError('not this one')\n"
        "    if submission.target_codec == 'av1': return 42\n"
        "@hookimpl\ndef distconvd_event(event): raise RuntimeError('deaf')\n"
    )
    async with open_daemon(plugins=[name]) as daemon:
        for codec, status in (("vp9", 500), ("av1", 500), ("h264", 200)):
            body = JOB | {"target_codec": codec}
            assert (await daemon.client.post("/jobs/", body)).status == status
        assert await metric(daemon, 'distconv_listener_failures_total{listener="mine"}') == 1
    assert "it returned 42, not a Submission" in caplog.text
    assert "plugin mine failed in distconvd_review_submission" in caplog.text
    assert "listener mine failed for job.submitted" in caplog.text


@pytest.mark.parametrize(
    "field", ["labels={1: 2}", "target_codec='\\ud800'", "priority='high'", "max_retries=-1"]
)
async def test_a_review_that_makes_an_invalid_submission_of_a_valid_one_is_named(
    plugin: Write, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(
        "import msgspec\n@hookimpl\ndef distconvd_review_submission(submission):\n"
        f"    return msgspec.structs.replace(submission, {field})\n"
    )
    async with open_daemon(plugins=[name]) as daemon:
        reply = await daemon.client.post("/jobs/", JOB)
        assert (reply.status, reply.json()["type"]) == (500, "urn:distconv:problem:plugin-failed")
        assert "'mine'" in reply.json()["detail"]
        assert (await daemon.client.get("/jobs/")).json() == []
    assert "plugin mine" in caplog.text


SKIPS = "class Panic(BaseException): ...\n"


@pytest.mark.parametrize("raised", ["exit('no')", "raise GeneratorExit", "raise Panic"])
async def test_a_base_exception_is_a_failure_of_its_hook_too(
    plugin: Write, raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As from a panic in another language, the skip of a test framework, or an exit."""
    name = plugin(
        SKIPS + "def place(self, job, engines, now_ms): " + raised + "\n"
        "def collect(self): " + raised + "\n"
        "Mine = type('Mine', (), {'place': place, 'collect': collect})\n"
        + REGISTRATIONS.format(hook="policies", answer="Mine()")
        + REGISTRATIONS.format(hook="metrics", answer="Mine()")
    )
    async with open_daemon(plugins=[name], policy="mine") as daemon:
        await assert_policy_overruled(daemon)
    assert "the metrics mine cannot be shown" in caplog.text


async def test_cancellation_and_an_interrupt_pass_through_a_hook() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HookWatch(1e9).timed("mine", "place", interrupted)()
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except BaseException as error:
            with pytest.raises(trio.Cancelled):
                reraise_if_cancelled(error)
            with pytest.raises(BaseExceptionGroup):
                reraise_if_cancelled(BaseExceptionGroup("both", [error, ValueError()]))
            raise


@pytest.mark.parametrize(
    "does",
    [
        "raise RuntimeError('no')", "exit('no')", "raise type('Panic', (BaseException,), {})",
        "return 42", "return Response(200, 'str', 'text/plain')", "return Response(200, None)",
        "return Response('ok')", "return Response(200, b'', None)",
        "return Response(headers={'X-One': 1})",
    ],
)  # fmt: skip
async def test_a_route_that_fails_is_a_500_of_its_own_that_names_its_plugin(
    plugin: Write, does: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(
        f"from distconvd.edge.http import Response, Route\nasync def broken(request): {does}\n"
        + REGISTRATIONS.format(hook="routes", answer="[Route('GET', '/a', broken, 'public')]"),
        name="owner",
    )
    async with open_daemon(plugins=[name]) as daemon:
        reply = await daemon.client.get("/a")
        assert (reply.status, reply.json()["type"]) == (500, "urn:distconv:problem:plugin-failed")
        assert "'owner'" in reply.json()["detail"]
        assert (await daemon.client.get("/jobs/")).status == 200
    assert "GET /a of plugin owner failed" in caplog.text


async def test_a_registration_that_stops_the_start_is_reported_with_its_plugin(
    plugin: Write,
) -> None:
    late = "type('Late', (), {'run': lambda self, *, task_status: 1 / 0})()"
    route = "from distconvd.edge.http import Route\n"
    for hook, answer, head in (
        ("services", "42", ""), ("services", late, ""), ("routes", "42", ""),
        ("routes", "[Route('GET', 'no-slash', None)]", route),
    ):  # fmt: skip
        name = plugin(head + REGISTRATIONS.format(hook=hook, answer=answer), name="owner")
        with pytest.raises(ConfigError, match="of plugin 'owner'"), plain_refusals():
            async with open_daemon(plugins=[name]):
                pass


def test_a_plugin_file_without_a_hook_is_logged_as_a_warning(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    Plugins([plugin("def distconvd_event(event): ...", name="forgotten")])
    assert "forgotten.py implements no hook, so it does nothing" in caplog.text


# ----------------------------------------------------------------------------------- slow hooks

SLOW = """
class Policy:
    def place(self, job, engines, now_ms):
        time.sleep(0.02)
        return Place(engines.fastest().engine_id, "slowly")
    def share(self, job):
        time.sleep(0.02)
        return Share("all", 1.0)
class Auth:
    def authenticate(self, key, peer):
        time.sleep(0.02)
        from distconvd.edge.http import Principal
        return Principal("anna", frozenset({"admin"}))
class Service:
    async def run(self, *, task_status):
        task_status.started()
    def on_event(self, event): time.sleep(0.02)
@hookimpl
def distconvd_register_policies(registrar): registrar.add("lazy", lambda context: Policy())
@hookimpl
def distconvd_register_authenticators(registrar): registrar.add("lazy", lambda context: Auth())
@hookimpl
def distconvd_register_services(registrar): registrar.add("lazy", lambda context, daemon: Service())
@hookimpl
def distconvd_review_submission(submission): time.sleep(0.02)
@hookimpl
def distconvd_event(event): time.sleep(0.02)
"""


@pytest.mark.alone
async def test_every_synchronous_call_into_a_plugin_is_timed_logged_and_counted(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    chosen: dict[str, Any] = {"policy": "lazy", "auth": "lazy", "hook_slow_ms": 10}
    async with open_daemon(plugins=[plugin(SLOW)], **chosen) as daemon:
        one = VirtualEngine(daemon, "e1")
        await one.beat()
        await daemon.client.post("/jobs/", JOB)
        await one.must_ask()
        slow = daemon.parts.watch.slow
        # On a busy machine others may be slow as well.
        assert set(slow) >= {
            ("lazy", "place"), ("lazy", "share"), ("lazy", "authenticate"), ("lazy", "on_event"),
            ("mine", "distconvd_review_submission"), ("mine", "distconvd_event"),
        }  # fmt: skip
        counted = await metric(daemon, 'distconv_slow_hooks_total{hook="place",plugin="lazy"}')
        assert counted == slow["lazy", "place"] == 1
    assert "plugin lazy is slow: place took " in caplog.text
    said = [r for r in caplog.records if "lazy is slow: authenticate" in r.getMessage()]
    assert len(said) == 1, "one line within QUIET_S"


async def test_a_hook_that_is_quick_enough_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_daemon(hook_slow_ms=10_000) as daemon:
        await daemon.client.post("/jobs/", JOB)
        assert not daemon.parts.watch.slow


def test_slow_calls_that_were_not_reported_are_in_the_next_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch = HookWatch(0.0)
    call = watch.timed("mine", "place", lambda: 7)
    assert [call(), call(), call()] == [7, 7, 7]
    monkeypatch.setattr(watchdog, "QUIET_S", 0.0)
    call()
    assert "and 2 more slow calls" in caplog.text
    assert watch.slow["mine", "place"] == 4


@pytest.mark.alone
def test_a_call_that_does_not_return_is_reported_with_its_line_while_it_still_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = HookWatch(1e9)

    with watch.alarm(0.05):
        watch.timed("mine", "distconvd_event", stuck)(caplog, "has blocked the daemon")
    assert "plugin mine has blocked the daemon" in caplog.text
    assert "in stuck" in caplog.text


@pytest.mark.alone
def test_the_watchdog_does_not_report_calls_that_return(caplog: pytest.LogCaptureFixture) -> None:
    watch = HookWatch(1e9)
    with watch.alarm(0.2):
        for _ in range(100):  # together they take longer than the alarm waits for one
            watch.timed("mine", "place", lambda: time.sleep(0.005))()
    assert "has blocked" not in caplog.text


# ------------------------------------------------------------------------------- settings tables

DECLARES = """
import msgspec
class Mine(msgspec.Struct, forbid_unknown_fields=True):
    colour: str = "red"
    api_key: str | None = None
    sizes: list[int] = []
@hookimpl
def distconvd_register_settings(registrar): registrar.add("mine", {kind})
"""


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    main([*flags, "config"])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_table_of_a_plugin_is_shown_with_defaults_origins_and_secrets_masked(
    plugin: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin(DECLARES.format(kind="Mine"))
    lines = shown(
        capsys, "--plugin", name, "--set", "plugin.mine.api_key=hush", "--set", "plugin.nope.x=1",
    )  # fmt: skip
    assert 'plugin.mine.colour = "red" # default' in lines
    assert "plugin.mine.api_key = ******** # flag --set" in lines
    assert "plugin.nope.x = 1 # flag --set" in lines
    assert "# no loaded plugin declares [plugin.nope]: is the name right?" in lines
    assert "hush" not in "".join(lines)


@pytest.mark.parametrize(
    "setting, said",
    [("colour=7", "colour"), ("colours=1", "colours"), ('sizes=["x"]', "sizes")],
)
async def test_a_table_that_does_not_fit_its_type_stops_the_start_and_config_alike(
    plugin: Write, setting: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin(DECLARES.format(kind="Mine"))
    with pytest.raises(SystemExit) as end:
        main(["--plugin", name, "--set", f"plugin.mine.{setting}", "config"])
    assert end.value.code == 78
    printed = capsys.readouterr().err
    assert "[plugin.mine]" in printed
    assert said in printed
    table = {"mine": {said: ["x"]}}
    with pytest.raises(ConfigError, match=said):
        async with open_daemon(plugins=[name], plugin=table):
            pass


@pytest.mark.parametrize("kind", ["dict", "42", "Mine()"])
async def test_a_settings_table_that_is_not_declared_as_a_struct_is_rejected(
    plugin: Write, kind: str
) -> None:
    with pytest.raises(ConfigError, match=r"plugin 'mine' declares \[plugin.mine\]"):
        async with open_daemon(plugins=[plugin(DECLARES.format(kind=kind))]):
            pass


@pytest.mark.parametrize("given", ["7", "''", "None"])
async def test_a_registration_under_an_invalid_name_is_refused(plugin: Write, given: str) -> None:
    text = f"@hookimpl\ndef distconvd_register_policies(registrar): registrar.add({given}, None)"
    with pytest.raises(ConfigError, match="plugin 'mine' registers a policy under"):
        async with open_daemon(plugins=[plugin(text)]):
            pass


def test_of_two_packages_of_one_name_the_second_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one_package", "another_package"):
        (tmp_path / f"{name}.py").write_text(HEAD)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    points = [metadata.EntryPoint("same", f"{n}_package", "distconvd") for n in ("one", "another")]
    monkeypatch.setattr(loading, "entry_points", lambda group: points)
    assert [one.origin for one in Plugins([]).listing()] == ["one_package"]
    assert "installed plugin left out: plugin 'same' is rejected" in caplog.text


async def test_a_settings_table_that_no_plugin_reads_is_reported_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_daemon(plugin={"size-awful": {"x": 1}, "size-aware": {"large_from_mb": 200}}):
        pass
    printed = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert printed == ["no loaded plugin reads [plugin.size-awful] of the configuration"]


async def test_a_policy_that_always_holds_is_asked_a_bounded_number_of_times_a_request(
    plugin: Write,
) -> None:
    """Otherwise each request would ask about every pending job."""
    name = plugin(
        "asked = []\nclass Policy:\n    def place(self, job, engines, now_ms):\n"
        "        asked.append(job.job_id)\n        return Hold('never')\n"
        + REGISTRATIONS.format(hook="policies", answer="Policy()")
    )
    async with open_daemon(plugins=[name], policy="mine") as daemon:
        for _ in range(50):
            await daemon.client.post("/jobs/", JOB)
        one = VirtualEngine(daemon, "e1")
        await one.beat()
        with trio.fail_after(5):
            assert await one.ask() is None
        assert len(sys.modules["distconvd_plugin_mine"].asked) == 16
