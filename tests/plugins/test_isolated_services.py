"""A failing review, listener or service ends neither the daemon nor a bundled service."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.plugins.kit import JOB, Write, stuck

from distconvd.config import load_config
from distconvd.daemon import assemble
from distconvd.errors import ConfigError, StoreError
from distconvd.main import main
from distconvd.plugin_host import services
from distconvd.plugin_host.loading import Plugins
from distconvd.plugin_host.watchdog import HookWatch
from distconvd.store import Snapshot
from distconvd.testing.daemon import open_daemon

SOON: dict[str, Any] = {"spool-intake": {"poll_s": 0.01}}

REVIEWS = """
@hookimpl
def distconvd_review_submission(submission):
    if submission.labels.get("kind") == "poison": {fault}
"""
SERVICE = """
class Service:
    runs = 0
    async def run(self, *, task_status):
        Service.runs += 1
{body}
@hookimpl
def distconvd_register_services(registrar): registrar.add("mine", lambda *_: Service())
"""


def service(*lines: str) -> str:
    return SERVICE.format(body="\n".join(f"        {line}" for line in lines))


def drop(spool: Path, name: str, **labels: str) -> None:
    """Drop a job under a name that is a key, so that it counts as stable immediately."""
    part = spool / "tmp" / name
    part.write_text(json.dumps(JOB | {"labels": labels}))
    part.rename(spool / "incoming" / name)


async def until(seen: Callable[[], object]) -> None:
    """Wait for a file; on the real clock, because threads do the work."""
    with trio.fail_after(30):
        while not seen():
            await trio.sleep(0.01)


# --------------------------------------------------- reviews that fail, inside of bundled services


@pytest.mark.parametrize(
    "fault",
    [
        "raise RuntimeError('oh no')",
        "exit('no')",
        "return 42",
        "return replace(submission, labels={'a': chr(0xD800)})",
        "return replace(submission, labels={'a': object()})",
    ],
)
async def test_a_drop_on_which_a_review_fails_is_rejected_naming_the_plugin_and_the_next_is_accepted(
    plugin: Write, tmp_path: Path, fault: str
) -> None:
    name, spool = plugin(REVIEWS.format(fault=fault)), tmp_path / "spool"
    async with open_daemon(plugins=[name], spool_dir=str(spool), plugin=SOON) as daemon:
        drop(spool, f"{0:032x}.json", kind="poison")
        drop(spool, f"{1:032x}.json")
        await until(lambda: [*(spool / "accepted").iterdir()])
        await until(lambda: len([*(spool / "rejected").iterdir()]) == 2)
        [path] = (spool / "rejected").glob("*.problem.json")
        problem = json.loads(path.read_text())
        assert problem["status"] == 500
        assert problem["type"] == "urn:distconv:problem:plugin-failed"
        assert "'mine'" in problem["detail"]
        assert (await daemon.client.get("/livez")).status == 200


POISON: list[tuple[str, bytes]] = [
    ("a.toml", b"source_url = 'file:///a'\ntarget_codec = 'av1'\njob_size = 1" + b"0" * 4400),
    ("b.toml", b"source_url = 'file:///a'\ntarget_codec = 'av1'\nx = 0x" + b"f" * 60_000),
    ("c.toml", b"source_url = 'file://['\ntarget_codec = 'av1'"),
    ("d.toml", b"a = " + b"[" * 100_000),
    ("e.toml", b"a = '\xff'"),
    ("f.toml", b"job_size = nan"),
    ("g.json", b'{"source_url": "file:///a", "target_codec": "av1", "job_size": 1e999}'),
    ("h.json", b'{"source_url": "file:///a", "target_codec": "av1", "x": 1' + b"0" * 4400 + b"}"),
    ("i.json", b'{"source_url": "file:///\\ud800", "target_codec": "av1"}'),
    ("j.json", b'{"source_url": "file:///a", "\\udc00": 1}'),
    ("k.json", b'{"source_url": "file:///\xed\xa0\x80"}'),
    ("l.json", b'{"a":' * 40_000),
    ("m.json", b'{"target_codec": "av1", "target_codec": 5}'),
    ("n.json", b"\x00" * 100),
]


async def test_each_poisonous_drop_is_rejected_alone_and_the_good_one_after_them_is_accepted(
    tmp_path: Path,
) -> None:
    spool = tmp_path / "spool"
    settings: dict[str, Any] = {"spool-intake": {"poll_s": 0.01, "settle_s": 0.0}}
    async with open_daemon(spool_dir=str(spool), plugin=settings) as daemon:
        for name, data in POISON:
            (spool / "tmp" / name).write_bytes(data)
            (spool / "tmp" / name).rename(spool / "incoming" / name)
        drop(spool, f"{1:032x}.json")
        await until(lambda: [*(spool / "accepted").iterdir()])
        await until(lambda: len([*(spool / "rejected").iterdir()]) == 2 * len(POISON))
        printed = [json.loads(p.read_text()) for p in (spool / "rejected").glob("*.problem.json")]
        assert {problem["drop"] for problem in printed} == {name for name, _ in POISON}
        assert {problem["status"] for problem in printed} == {400}
        assert not daemon.parts.service_failures


async def test_a_video_on_which_a_review_fails_gets_a_report_and_the_next_is_submitted(
    plugin: Write, tmp_path: Path
) -> None:
    name = plugin(REVIEWS.format(fault="raise RuntimeError('oh no')"))
    folder = tmp_path / "watch" / "h264" / "bad"
    folder.mkdir(parents=True)
    (folder / "distconv.toml").write_text('labels = { kind = "poison" }\noutput = "../../../out"\n')
    (folder / "a.mov").write_text("a film")
    (folder.parent / "b.mov").write_text("another")
    settings: dict[str, Any] = {
        "hot-folder": {
            "watch": str(tmp_path / "watch"),
            "output_roots": [str(tmp_path)],
            "settle_s": 0.0,
            "poll_s": 0.01,
        }
    }
    state = str(tmp_path / "state.json")
    async with open_daemon(plugins=[name], plugin=settings, state_file=state) as daemon:
        await until(lambda: daemon.parts.dispatcher.state.jobs)
        await until(lambda: [*tmp_path.glob("out/**/*.report.json")])
        [path] = tmp_path.glob("out/**/*.report.json")
        report = json.loads(path.read_text())
        assert report["status"] == "rejected"
        assert "'mine'" in report["error"]
        assert len(daemon.parts.dispatcher.state.jobs) == 1


async def test_a_review_that_says_later_keeps_a_drop_waiting_and_is_a_503_to_a_client(
    plugin: Write, tmp_path: Path
) -> None:
    fault = "asked.append(1); raise Unavailable('too many')"
    name, spool = plugin("asked = []\n" + REVIEWS.format(fault=fault)), tmp_path / "spool"
    async with open_daemon(plugins=[name], spool_dir=str(spool), plugin=SOON) as daemon:
        drop(spool, f"{0:032x}.json", kind="poison")
        await until(lambda: len(sys.modules["distconvd_plugin_mine"].asked) >= 3)
        assert len([*(spool / "claimed").glob("*/*.json")]) == 1
        later = await daemon.client.post("/jobs/", JOB | {"labels": {"kind": "poison"}})
        assert (later.status, later.headers["retry-after"]) == (503, "1")


async def test_a_submission_repeated_under_its_key_is_answered_as_before_though_a_review_now_rejects_it(
    plugin: Write,
) -> None:
    name = plugin(
        "asked = []\n@hookimpl\ndef distconvd_review_submission(submission):\n"
        "    asked.append(1)\n    if len(asked) > 1: raise BadRequest('One is enough.')\n"
    )
    async with open_daemon(plugins=[name]) as daemon:
        first = await daemon.client.post("/jobs/", JOB, idempotency_key="k")
        again = await daemon.client.post("/jobs/", JOB, idempotency_key="k")
        assert (first.status, again.status) == (200, 200)
        assert first.json()["job_id"] == again.json()["job_id"]
        assert (await daemon.client.post("/jobs/", JOB, idempotency_key="other")).status == 400


async def test_lines_of_a_batch_repeated_under_its_key_are_answered_as_before(
    plugin: Write,
) -> None:
    name = plugin(
        "asked = []\n@hookimpl\ndef distconvd_review_submission(submission):\n"
        "    asked.append(1)\n    if len(asked) > 2: raise BadRequest('Two are enough.')\n"
    )
    body = b"\n".join(json.dumps(JOB | {"job_size": size}).encode() for size in (1, 2))
    ndjson = {"content_type": "application/x-ndjson", "idempotency_key": "k"}
    async with open_daemon(plugins=[name]) as daemon:
        first = await daemon.client.post("/jobs/", body, **ndjson)
        again = await daemon.client.post("/jobs/", body, **ndjson)
        assert [line["status"] for line in again.lines] == [200, 200]
        assert first.lines == again.lines


# ------------------------------------------------------------------------------------- sys.exit


async def test_a_hook_that_calls_exit_does_not_end_the_daemon(
    plugin: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(
        "from distconvd.edge.http import Route\n"
        "class Policy:\n    def place(self, job, engines, now_ms): exit('place')\n"
        "    def share(self, job): exit('share')\n"
        "async def leave(request): exit('route')\n"
        "@hookimpl\ndef distconvd_event(event): exit('event')\n"
        "@hookimpl\ndef distconvd_register_policies(registrar):\n"
        "    registrar.add('mine', lambda context: Policy())\n"
        "@hookimpl\ndef distconvd_register_routes(registrar):\n"
        "    registrar.add('mine', lambda context: [Route('GET', '/leave', leave, 'public')])\n"
    )
    async with open_daemon(plugins=[name], policy="mine") as daemon:
        beat = {"engine_id": "e1", "benchmark_time": 1.0, "status": "idle"}
        await daemon.client.post("/engines/heartbeat", beat)
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
        assert (await daemon.client.post("/assign_job/", {})).status == 200
        assert (await daemon.client.get("/leave")).status == 500
    assert "listener mine failed" in caplog.text
    assert "policy mine failed" in caplog.text


# --------------------------------------------------------------------------------- async functions


@pytest.mark.parametrize(
    "text",
    [
        "@hookimpl\nasync def distconvd_event(event): ...",
        "@hookimpl\ndef distconvd_event(event): yield",
        "@hookimpl\nasync def distconvd_register_stores(registrar): ...",
    ],
)
async def test_an_async_or_generator_hook_is_rejected_with_a_remedy(
    plugin: Write, text: str
) -> None:
    with pytest.raises(ConfigError, match="hooks are plain functions") as refused:
        async with open_daemon(plugins=[plugin(text)]):
            pass
    assert "'mine'" in str(refused.value)


@pytest.mark.parametrize(
    "hook, method, chosen",
    [
        ("policies", "place", {"policy": "mine"}),
        ("authenticators", "authenticate", {"auth": "mine"}),
        ("services", "on_event", {}),
    ],
)
async def test_an_async_method_where_a_plain_one_is_needed_is_rejected_with_a_remedy(
    plugin: Write, hook: str, method: str, chosen: dict[str, Any]
) -> None:
    text = (
        f"class Mine:\n    async def {method}(self, *args): ...\n    async def run(self): ...\n"
        "@hookimpl\n"
        f"def distconvd_register_{hook}(registrar): registrar.add('mine', lambda *_: Mine())\n"
    )
    with pytest.raises(ConfigError, match=f"'mine' has an async {method}; make it a plain"):
        async with open_daemon(plugins=[plugin(text)], **chosen):
            pass


async def test_an_async_factory_is_refused_by_name(plugin: Write) -> None:
    text = (
        "async def make(*args): ...\n@hookimpl\n"
        "def distconvd_register_services(registrar): registrar.add('mine', make)\n"
    )
    with pytest.raises(
        ConfigError, match="the service 'mine' of plugin 'mine' is made by an async function"
    ):
        async with open_daemon(plugins=[plugin(text)]):
            pass


# ------------------------------------------------------------------------------------ bad services


@pytest.mark.parametrize(
    "lines, said",
    [
        (["raise ValueError('no lamp')"], "ValueError.'no lamp'"),
        (["exit(3)"], "SystemExit"),
        (["raise ConfigError('The lamp is missing.')"], "The lamp is missing"),
        (["return"], "task_status.started"),
        (["await trio.sleep_forever()"], "task_status.started.. within 0.05 s"),
    ],
)
async def test_a_service_that_does_not_start_stops_the_daemons_start_and_is_named(
    plugin: Write,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(services, "START_S_MAX", 0.05)
    with pytest.raises(ConfigError, match=said) as refused:
        async with open_daemon(plugins=[plugin(service(*lines))]):
            pass
    assert "'mine'" in str(refused.value) or "lamp is missing" in str(refused.value)


async def test_a_service_whose_disk_or_network_is_not_there_does_not_stop_the_start(
    plugin: Write, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    name = plugin(service("raise OSError(28, 'No space left on device')"))
    async with open_daemon(plugins=[name]) as daemon:
        assert (await daemon.client.get("/readyz")).status == 200
        await trio.sleep(2)
        assert daemon.parts.service_failures["mine"] >= 2
    assert "No space left on device" in caplog.text


def test_the_command_says_in_one_line_which_service_does_not_start(
    plugin: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin(service("raise ValueError('no lamp')"))
    with pytest.raises(SystemExit) as end:
        main(["--port", "0", "--store", "memory", "--plugin", name])
    assert end.value.code == 78
    printed = capsys.readouterr().err.splitlines()[-1]
    assert (
        printed
        == "distconvd: the service 'mine' of plugin 'mine' does not start: ValueError('no lamp')"
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raise ValueError('blown')", "exit(3)", "trio.run(1)"])
async def test_a_service_that_fails_later_is_counted_and_restarted_with_a_growing_delay(
    plugin: Write,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    name = plugin(service("task_status.started()", "await trio.sleep(0)", fault))
    async with open_daemon(plugins=[name]) as daemon:
        await trio.sleep(1 + 2 + 4 + 0.5)
        assert daemon.parts.service_failures == {"mine": 4}
        text = (await daemon.client.get("/metrics")).body.decode()
        assert 'distconv_service_failures_total{service="mine"} 4.0' in text
        await trio.sleep(3600)
        assert daemon.parts.service_failures["mine"] < 25
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
    assert "service mine failed; it is started again in 4 s" in caplog.text


async def test_a_service_that_fails_in_a_task_of_its_own_is_run_again(
    plugin: Write, autojump_clock: trio.testing.MockClock
) -> None:
    body = [
        "async def burn(): raise ValueError('blown')",
        "async with trio.open_nursery() as nursery:",
        "    task_status.started()",
        "    if Service.runs == 1: nursery.start_soon(burn)",
        "    await trio.sleep_forever()",
    ]
    async with open_daemon(plugins=[plugin(service(*body))]) as daemon:
        await trio.sleep(10)
        assert daemon.parts.service_failures == {"mine": 1}
        assert (await daemon.client.get("/livez")).status == 200


async def test_a_service_that_returns_is_not_run_again(
    plugin: Write, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_daemon(plugins=[plugin(service("task_status.started()"))]) as daemon:
        await trio.sleep(10)
        assert not daemon.parts.service_failures
    assert "service mine has ended" in caplog.text


async def test_the_restart_delay_is_reset_after_a_long_run_without_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began_s: list[float] = []

    class Tired:
        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            began_s.append(trio.current_time())
            task_status.started()
            if len(began_s) == 4:
                await trio.sleep(services.AGAIN_S_MAX + 1)
            if len(began_s) < 6:
                raise ValueError("tired")

    await services.run_service("mine", Tired(), Counter(), "mine", HookWatch(1e9))
    waits_s = [later - sooner for sooner, later in pairwise(began_s)]
    assert waits_s == [1, 2, 4, services.AGAIN_S_MAX + 1 + 1, 2]


def test_a_service_that_blocks_is_reported_with_its_line_while_it_still_blocks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = HookWatch(1e9)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.beat_forever)
            await trio.testing.wait_all_tasks_blocked()
            stuck(caplog, "has been blocked")
            nursery.cancel_scope.cancel()

    with watch.alarm(0.05):
        trio.run(main)
    assert "the daemon has been blocked for over" in caplog.text
    assert "in stuck" in caplog.text


@pytest.mark.parametrize("in_a_child", [False, True])
def test_a_service_that_blocks_right_after_its_start_is_named(
    caplog: pytest.LogCaptureFixture, in_a_child: bool
) -> None:
    watch = HookWatch(1e9)

    class Spins:
        async def spin(self) -> None:
            stuck(caplog, "has blocked the daemon")

        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            if not in_a_child:
                await self.spin()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.spin if in_a_child else trio.lowlevel.checkpoint)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.beat_forever)
            await services.run_service("mine", Spins(), Counter(), "theirs", watch)
            nursery.cancel_scope.cancel()

    with watch.alarm(0.5):
        trio.run(main)
    assert "the service 'mine' of plugin 'theirs' has blocked the daemon for over" in caplog.text
    assert "in stuck" in caplog.text


# -------------------------------------------------------------------------------------- bad stores


class Odd:
    """A store that raises what no store may raise."""

    def __init__(self) -> None:
        self.fault: BaseException | None = None

    async def load(self) -> Snapshot:
        if self.fault is not None:
            raise self.fault
        return Snapshot({}, {}, {}, {})

    async def commit(self, changes: object) -> None:
        if self.fault is not None:
            raise self.fault

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("fault", [KeyError("x"), SystemExit(3), RuntimeError("bug")])
async def test_nothing_counts_as_durable_after_a_store_has_raised_any_exception(
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    fault: BaseException,
) -> None:
    store = Odd()
    async with open_daemon(store=store) as daemon:
        store.fault = fault
        assert (await daemon.client.post("/jobs/", JOB)).status == 503
        assert (await daemon.client.get("/readyz")).status == 503
        assert (await daemon.client.get("/jobs/")).json() == []
        store.fault = None
        await trio.sleep(5)
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
    assert "the store raised an exception that is neither OSError nor StoreError" in caplog.text


@pytest.mark.parametrize("answer", ["None", "({}, {}, {})", "1/0"])
async def test_a_store_that_loads_nonsense_stops_the_start_and_is_named(
    plugin: Write, answer: str
) -> None:
    name = plugin(
        f"class Store:\n    async def load(self): return {answer}\n"
        "    async def commit(self, changes): ...\n    async def aclose(self): ...\n"
        "@hookimpl\n"
        "def distconvd_register_stores(registrar): registrar.add('mine', lambda _: Store())\n"
    )
    with pytest.raises(StoreError, match="the store 'mine'"):
        await assemble(load_config({"store": "mine"}, {}).config, Plugins([name]))


async def test_a_service_that_raises_a_base_exception_is_restarted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Panic(BaseException): ...

    class Panics:
        runs = 0

        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            self.runs += 1
            if self.runs == 1:
                raise Panic

    failures = Counter[str]()
    panics = Panics()
    await services.run_service("mine", panics, failures, "mine", HookWatch(1e9))
    assert (panics.runs, failures["mine"]) == (2, 1)
