"""The listeners `webhook` and `exec` pass the suite, and deliver each event as documented."""

import hashlib
import hmac
import json
import logging
import os
import re
import sqlite3
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
import trio

from distconv_plugins.listener_exec import Exec, ExecSettings, environment_of
from distconv_plugins.webhook.http_post import check_url, post
from distconv_plugins.webhook.plugin import Webhook, WebhookSettings, signature_of
from distconv_plugins.webhook.queue import WebhookQueue
from distconvd.dispatch import Event
from distconvd.errors import ConfigError
from distconvd.testing.daemon import open_daemon
from distconvd.testing.engine import VirtualEngine
from distconvd.testing.listener_suite import Listener, ListenerSuite

SECRET = "a secret of sixteen"
PEM = Path(__file__).with_name("localhost.pem")
"""Made for these tests with `openssl req -x509 -newkey ec … -days 36500 -subj /CN=localhost`."""
DONE = Event("job.completed", 1_700_000_000_000, "1_0", "e1", 1, b'{"job_id":"1_0"}', None)


class TestWebhook(ListenerSuite):
    @pytest.fixture
    def listener(self, tmp_path: Path) -> Listener:
        settings = WebhookSettings(urls=["http://127.0.0.1:9/"], secret=SECRET, events=["*"])
        return Webhook(settings, tmp_path / "queue")


class TestExec(ListenerSuite):
    @pytest.fixture
    def listener(self) -> Listener:
        return Exec(ExecSettings(command=[sys.executable, "-c", ""], events=["*"]))


# -------------------------------------------------------------------------------- a receiver


class Receiver:
    """An HTTP server that records requests and sends the chosen answers."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        """The next answers; 200 when there are none."""
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.is_mute = False
        self.url = ""

    async def serve(
        self, tls: ssl.SSLContext | None = None, *, task_status: trio.TaskStatus[None]
    ) -> None:
        async def talk(stream: trio.SocketStream) -> None:
            await self._talk(
                stream if tls is None else trio.SSLStream(stream, tls, server_side=True)
            )

        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://localhost:{port}/hook?x=1"
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, talk, [listener])
            task_status.started()

    async def _talk(self, stream: trio.abc.Stream) -> None:
        machine, head, body = h11.Connection(h11.SERVER), {}, b""
        try:
            while True:
                event = machine.next_event()
                if event is h11.NEED_DATA:
                    machine.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    head = {n.decode(): v.decode() for n, v in event.headers}
                    head[":target"] = event.target.decode()
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    break
            if not isinstance(event, h11.EndOfMessage):
                return
            if self.is_mute:
                await trio.sleep_forever()
            status, headers = self.answers.pop(0) if self.answers else (200, {})
            self.received.append((head, body))
            reply = h11.Response(
                status_code=status, headers=[("Content-Length", "0"), *headers.items()]
            )
            await stream.send_all(
                (machine.send(reply) or b"") + (machine.send(h11.EndOfMessage()) or b"")
            )
        except (trio.BrokenResourceError, ssl.SSLError):
            pass  # the client has gone, or does not trust this certificate
        finally:
            await trio.aclose_forcefully(stream)

    async def wait_for(self, count: int) -> None:
        while len(self.received) < count:
            await trio.sleep(0.002)

    @property
    def deliveries(self) -> list[Any]:
        return [json.loads(body) for _, body in self.received]


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(receiver.serve, tls)
            yield receiver
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(
    path: Path, *urls: str, tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncGenerator[Webhook]:
    hook = Webhook(
        msgspec.convert({"urls": urls, "secret": SECRET, **settings}, WebhookSettings), path, tls=tls,
        now_s=lambda: 1_700_000_000.5,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(hook.run)
        yield hook
        nursery.cancel_scope.cancel()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tries follow each other almost immediately."""
    monkeypatch.setattr("distconv_plugins.webhook.plugin.BACKOFF_MIN_S", 0.01)


# ------------------------------------------------------------------------------- the webhook


async def test_an_event_is_posted_whole_and_signed(tmp_path: Path) -> None:
    async with receiving() as receiver, running(tmp_path / "q", receiver.url) as hook:
        hook.on_event(DONE)
        await receiver.wait_for(1)
    [(head, body)] = receiver.received
    deliveries = json.loads(body)
    assert deliveries == {
        "id": head["x-distconv-delivery"], "kind": "job.completed", "at_ms": 1_700_000_000_000,
        "job_id": "1_0", "engine_id": "e1", "attempt": 1, "record": {"job_id": "1_0"},
        "reason": None,
    }  # fmt: skip
    assert head[":target"] == "/hook?x=1"
    assert head["x-distconv-event"] == "job.completed"
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", head["x-distconv-signature"])
    assert found
    assert found[1] == "1700000000"
    signed = hmac.new(SECRET.encode(), found[1].encode() + b"." + body, hashlib.sha256)
    assert hmac.compare_digest(found[2], signed.hexdigest())
    assert signature_of("another of sixteen", 1_700_000_000, body) != head["x-distconv-signature"]


async def test_only_the_chosen_kinds_of_event_are_delivered(tmp_path: Path) -> None:
    events = ["engine.*"]
    async with (
        receiving() as receiver,
        running(tmp_path / "q", receiver.url, events=events) as hook,
    ):
        hook.on_event(DONE)
        hook.on_event(Event("engine.offline", 1, engine_id="e1"))
        await receiver.wait_for(1)
    assert [one["kind"] for one in receiver.deliveries] == ["engine.offline"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [500, 503, 408, 429])
async def test_a_delivery_that_fails_is_repeated_with_the_same_id_and_in_order(
    tmp_path: Path, status: int
) -> None:
    async with receiving() as receiver, running(tmp_path / "q", receiver.url) as hook:
        receiver.answers = [(status, {})] * 3
        hook.on_event(DONE)
        hook.on_event(DONE._replace(job_id="2_0"))
        await receiver.wait_for(5)
    ids = [one["id"] for one in receiver.deliveries]
    assert ids[:4] == [ids[0]] * 4
    assert [one["job_id"] for one in receiver.deliveries] == ["1_0"] * 4 + ["2_0"]


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 302])
async def test_a_permanently_failing_delivery_is_tried_once_and_logged(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving() as receiver, running(tmp_path / "q", receiver.url) as hook:
        receiver.answers = [(status, {"Location": "/other"})]
        hook.on_event(DONE)
        hook.on_event(DONE._replace(job_id="2_0"))
        await receiver.wait_for(2)
    assert [one["job_id"] for one in receiver.deliveries] == ["1_0", "2_0"]
    assert f"answered {status} to job.completed, which is dropped" in caplog.text


@pytest.mark.usefixtures("quick")
async def test_the_path_of_a_url_is_never_logged_because_it_may_be_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving() as receiver:
        url = receiver.url.rstrip("/") + "/hooks/T0KEN?sig=S1GNATURE"
        async with running(tmp_path / "q", url) as hook:
            receiver.answers = [(503, {}), (404, {})]
            hook.on_event(DONE)
            await receiver.wait_for(2)
    deliveries = [r for r in caplog.records if r.name == "distconvd.webhook"]
    assert {vars(record)["job_id"] for record in deliveries} == {"1_0"}
    assert "http://localhost:" in caplog.text
    with pytest.raises(ConfigError, match="user") as refused:
        Webhook(WebhookSettings(urls=["https://anna:PASSW0RD@x/T0KEN"], secret=SECRET), tmp_path)
    for secret in ("T0KEN", "S1GNATURE", "PASSW0RD"):
        assert secret not in caplog.text + str(refused.value)


@pytest.mark.usefixtures("quick")
async def test_a_receiver_that_does_not_answer_does_not_delay_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving() as mute, receiving() as good:
        mute.is_mute = True
        urls = (mute.url, "http://localhost:9/", good.url)
        async with running(tmp_path / "q", *urls, timeout_s=0.05) as hook:
            for number in range(5):
                hook.on_event(DONE._replace(job_id=f"{number}_0"))
            await good.wait_for(5)
            while "no reply in 0.05 s" not in caplog.text:
                await trio.sleep(0.005)
    assert [one["job_id"] for one in good.deliveries] == [f"{number}_0" for number in range(5)]


@pytest.mark.usefixtures("quick")
async def test_events_that_were_not_acknowledged_are_delivered_after_a_restart(
    tmp_path: Path,
) -> None:
    async with receiving() as receiver:
        receiver.answers = [(503, {"Retry-After": "1000"})]
        async with running(tmp_path / "q", receiver.url) as hook:
            hook.on_event(DONE)
            await receiver.wait_for(1)
            hook.on_event(DONE._replace(job_id="2_0"))
        async with running(tmp_path / "q", receiver.url):
            await receiver.wait_for(3)
        async with running(tmp_path / "q", receiver.url) as hook:
            hook.on_event(DONE._replace(job_id="3_0"))
            while receiver.deliveries[-1]["job_id"] != "3_0":
                await trio.sleep(0.002)
    deliveries = [one["job_id"] for one in receiver.deliveries]
    assert deliveries[:3] == ["1_0", "1_0", "2_0"]
    # An event whose acknowledgement was on its way when the daemon ended is delivered again.
    assert list(dict.fromkeys(deliveries)) == ["1_0", "2_0", "3_0"]
    assert len({one["id"] for one in receiver.deliveries}) == 3
    assert (tmp_path / "q").stat().st_mode & 0o777 == 0o600


async def test_https_is_verified(tmp_path: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(PEM)
    trusting = ssl.create_default_context(cafile=str(PEM))
    async with receiving(server) as receiver:
        async with running(tmp_path / "q", receiver.url, tls=trusting) as hook:
            hook.on_event(DONE)
            await receiver.wait_for(1)
        with pytest.raises(OSError, match=r"certificate|CERTIFICATE|SSL"):
            await post(receiver.url, b"", {}, tls=ssl.create_default_context())
        other = receiver.url.replace("localhost", "127.0.0.1")
        with pytest.raises(OSError, match=r"certificate|CERTIFICATE|SSL"):
            await post(other, b"", {}, tls=trusting)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("raw", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200", b"x" * 200_000])
async def test_an_invalid_reply_is_a_delivery_error(raw: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            try:
                await stream.send_all(raw)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, talk, 0)
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(10), pytest.raises(OSError):
            await post(f"http://localhost:{port}/", b"{}", {})
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"secret": None}, "secret"),
        ({"secret": "short"}, "secret"),
        ({"urls": ["ftp://x/"]}, "ftp://x/"),
        ({"urls": ["http:///path"]}, "http:///…"),
        ({"urls": ["https://anna:pw@x/"]}, "user"),
        ({"urls": ["http://x/a b"]}, "space"),
        ({"events": ["job.exploded"]}, "job.exploded"),
    ],
)
def test_invalid_settings_of_a_webhook_are_rejected(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"urls": ["https://x/"], "secret": SECRET, **settings}
    with pytest.raises(ConfigError, match=re.escape(said)):
        Webhook(msgspec.convert(given, WebhookSettings), tmp_path / "q")


def test_valid_urls_of_a_webhook_are_accepted() -> None:
    for url in ("http://x", "https://x:8443/a%20b?c=d", "http://[::1]:80/"):
        assert check_url(url) == url


# ----------------------------------------------------------------------------- its queue


def bodies(queue: WebhookQueue, url: str) -> list[bytes]:
    found = []
    while (waiting := queue.first(url)) is not None:
        found.append(waiting.body)
        queue.remove(waiting.number)
    return found


def entry(number: int) -> tuple[str, str, bytes]:
    return (f"id-{number}", "job.completed", b"%d" % number)


def test_the_queue_is_bounded_for_each_url_and_drops_the_oldest(tmp_path: Path) -> None:
    queue = WebhookQueue(tmp_path / "q", 3)
    assert queue.add(["a", "b"], [entry(1), entry(2)]) == 0
    assert queue.add(["a"], [entry(3), entry(4), entry(5)]) == 2
    assert bodies(queue, "a") == [b"3", b"4", b"5"]
    assert bodies(queue, "b") == [b"1", b"2"]
    queue.close()


def test_the_queue_takes_all_of_a_batch_or_none(tmp_path: Path) -> None:
    queue = WebhookQueue(tmp_path / "q", 10)
    queue._file.execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match="full"):
        queue.add(["a"], [entry(1), ("id", "kind", b"x" * 1_000_000)])
    assert bodies(queue, "a") == []
    queue._file.execute("PRAGMA max_page_count = 1000000")
    queue.add(["a"], [entry(2)])
    assert bodies(queue, "a") == [b"2"]
    queue.close()


@pytest.mark.parametrize("damage", ["no database", "a page"])
def test_a_damaged_queue_is_set_aside_and_an_empty_one_takes_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "queue"
    queue = WebhookQueue(path, 1000)
    queue.add(["a"], [entry(number) for number in range(500)])
    queue.close()
    contents = bytearray(path.read_bytes())
    if damage == "no database":
        contents[:] = b"no database at all, but long enough to be looked at" * 100
    else:
        contents[8192:12288] = b"x" * 4096
    path.write_bytes(contents)
    queue = WebhookQueue(path, 1000)
    assert bodies(queue, "a") == []
    queue.add(["a"], [entry(1)])
    assert bodies(queue, "a") == [b"1"]
    queue.close()
    [aside] = tmp_path.glob("queue.damaged-*")
    assert aside.read_bytes() == contents
    assert str(aside) in caplog.text


def test_a_queue_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    file = sqlite3.connect(newer)
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(ConfigError, match="newer version"):
        WebhookQueue(newer, 10)


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_is_full_for_a_while_delays_events_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = WebhookQueue.add, [OSError("no space left")] * 3

    def add(queue: WebhookQueue, *args: Any) -> int:
        if failures:
            raise failures.pop()
        return real(queue, *args)

    monkeypatch.setattr(WebhookQueue, "add", add)
    async with receiving() as receiver, running(tmp_path / "q", receiver.url) as hook:
        for number in range(3):
            hook.on_event(DONE._replace(job_id=f"{number}_0"))
        await receiver.wait_for(3)
    assert [one["job_id"] for one in receiver.deliveries] == ["0_0", "1_0", "2_0"]


async def test_a_daemon_posts_the_end_of_a_job_to_its_receivers(tmp_path: Path) -> None:
    async with receiving() as receiver:
        settings = {
            "urls": [receiver.url], "secret": SECRET, "queue_file": str(tmp_path / "queue"),
        }  # fmt: skip
        async with open_daemon(plugin={"webhook": settings}) as daemon:
            one = VirtualEngine(daemon, "e1")
            await one.beat()
            body = {"source_url": "file:///a.mov", "target_codec": "h264"}
            await daemon.client.post("/jobs/", body)
            done = await one.complete(await one.must_ask())
            await receiver.wait_for(1)
    assert receiver.deliveries[0]["record"] == done


# ----------------------------------------------------------------------------------- exec

NOTE = """\
import json, os, sys
environ = {k: v for k, v in os.environ.items() if k.startswith("DISTCONV_")}
with open(sys.argv[1], "a") as file:
    print(json.dumps([json.load(sys.stdin), environ, sys.argv[2:]]), file=file)
"""


@asynccontextmanager
async def executing(*command: str, **settings: Any) -> AsyncGenerator[Exec]:
    given = {"command": command, **settings}
    service = Exec(msgspec.convert(given, ExecSettings))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            yield service
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.005)


async def test_a_command_gets_the_event_on_stdin_and_in_its_environment_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTCONV_API_KEY", "must not be inherited")
    out = tmp_path / "notes"
    odd = "$(touch /tmp/no); `x` 'y' \"z\" \0 日本語"
    async with executing(sys.executable, "-c", NOTE, str(out), "$HOME; *") as service:
        service.on_event(DONE._replace(kind="job.failed", reason=odd))
        service.on_event(DONE._replace(kind="job.progress"))
        await until(lambda: out.exists() and out.read_text().endswith("\n"))
    [(event, environment, arguments)] = [json.loads(line) for line in out.read_text().splitlines()]
    assert event["reason"] == odd
    assert event["record"] == {"job_id": "1_0"}
    assert environment == {
        "DISTCONV_EVENT": "job.failed", "DISTCONV_JOB_ID": "1_0", "DISTCONV_ENGINE_ID": "e1",
        "DISTCONV_ATTEMPT": "1", "DISTCONV_REASON": odd.replace("\0", " "),
    }  # fmt: skip
    assert arguments == ["$HOME; *"]


def test_fields_that_an_event_lacks_are_not_in_the_environment() -> None:
    deliveries = environment_of(Event("job.submitted", 1))
    assert {name for name in deliveries if name.startswith("DISTCONV_")} == {"DISTCONV_EVENT"}


@pytest.mark.e2e
async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pid = tmp_path / "pid"
    script = "sleep 1000 & echo $! > $0.new && mv $0.new $0; wait"
    async with executing("sh", "-c", script, str(pid), timeout_s=0.5) as service:
        service.on_event(DONE)
        await until(lambda: "took over 0.5 s for job.completed" in caplog.text)
    child = int(pid.read_text())
    with trio.fail_after(10):
        await until(lambda: not _lives(child))


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(
    "command, said",
    [
        (
            [sys.executable, "-c", "import sys; sys.exit('it did not like it')"],
            "it did not like it",
        ),
        ([sys.executable, "-c", "import os; os.write(2, b'x' * 10**6); 1/0"], "ZeroDivisionError"),
        (["/no/such/program"], "cannot be run"),
        ([os.devnull], "cannot be run"),
    ],
)
async def test_a_command_that_fails_is_logged_and_the_next_event_is_served(
    command: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with executing(*command) as service:
        for count in (1, 2):
            service.on_event(DONE)
            await until(lambda count=count: caplog.text.count(said) >= count)  # type: ignore[misc]


async def test_commands_and_waiting_events_are_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    script = 'mkdir "$0/run.$$"; while [ ! -e "$0/go" ]; do sleep 0.01; done; touch "$0/done.$$"'
    async with executing("sh", "-c", script, str(tmp_path), concurrency=2, queue_max=3) as service:
        for _ in range(2):
            service.on_event(DONE)
        await until(lambda: len(list(tmp_path.glob("run.*"))) == 2)
        for _ in range(10):
            service.on_event(DONE)
        assert service.dropped == 7
        assert len(list(tmp_path.glob("run.*"))) == 2
        (tmp_path / "go").touch()
        await until(lambda: len(list(tmp_path.glob("done.*"))) == 5)
    assert "4 dropped" in caplog.text


def test_exec_rejects_a_kind_of_event_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="'x'"):
        Exec(ExecSettings(command=["true"], events=["x"]))


async def test_without_a_command_and_without_urls_nothing_runs() -> None:
    async with open_daemon() as daemon:
        assert not {"exec", "webhook"} & {name for name, _ in daemon.parts.services}
