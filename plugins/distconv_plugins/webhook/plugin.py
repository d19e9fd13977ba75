"""POST events to URLs, signed and in order, and retry until each is acknowledged.

    [plugin.webhook]
    urls = ["https://example.com/hooks/distconv"]
    secret = "at least sixteen characters"
    events = ["job.completed", "job.failed"]

Each event is a POST of one JSON object, with

- `X-Distconv-Event`: its kind; `X-Distconv-Delivery`: its id, the same in every try, because an
  event may be delivered twice when its acknowledgement is lost;
- `X-Distconv-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of `SECONDS.BODY` under the
  secret. A receiver computes the same, compares in constant time, and rejects a `t` that is minutes
  off, so that a recorded request cannot be replayed.

2xx acknowledges the event. 408, 429, 5xx and no reply mean "later": that URL is retried with a
backoff (or after `Retry-After`) and keeps its order, while the other URLs continue. Any other
status means "never": the event is dropped for that URL, with a log line.

Events are written to disk within a moment of their publication; after that, neither an absent
receiver nor a restart loses one. Those of the last moment before a crash are lost: what must not be
missed is to be read from the jobs.
"""

import hashlib
import hmac
import logging
import random
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import trio

from distconv_plugins.shared.events import ENDS, event_json, kinds_of
from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.webhook.http_post import check_url, loggable_url, post
from distconv_plugins.webhook.queue import Waiting, WebhookQueue
from distconvd import hookimpl
from distconvd.errors import ConfigError
from distconvd.hookspecs import (
    DaemonAccess,
    PluginContext,
    Registrar,
    ServiceFactory,
    SettingsRegistrar,
)
from distconvd.plugin_api import Event

NAME = "webhook"
SECRET_CHARS_MIN = 16
BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 600.0
UNWRITTEN_MAX = 10_000
"""Events that are kept in memory while the disk cannot be written."""

log = logging.getLogger("distconvd.webhook")


class WebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.webhook]`; without URLs nothing is sent."""

    urls: list[str] = []
    """Where to send events."""
    secret: str | None = None
    """The key of the signatures; required."""
    events: list[str] = msgspec.field(default_factory=lambda: list(ENDS))
    """Kinds of event, or patterns such as `engine.*`."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Time for one try."""
    queue_max: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    """Events that may wait for one URL; beyond this the oldest are dropped."""
    queue_file: str | None = None
    """The file in which they wait. Default: the state file's name and `.webhook`."""


def signature_of(secret: str, at_s: int, body: bytes) -> str:
    """Return the `X-Distconv-Signature` of a body sent at `at_s`; receivers compute the same."""
    signed = hmac.new(secret.encode(), b"%d.%b" % (at_s, body), hashlib.sha256)
    return f"t={at_s},v1={signed.hexdigest()}"


class Webhook:
    """The service; see the module.

    Args:
        settings: the URLs, the kinds of event and the bounds.
        path: the queue's file.
        tls: for https; None for the system's certificates.
        now_s: the wall clock, for signatures.

    Raises `ConfigError` for an invalid URL, secret or pattern.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        path: Path,
        *,
        tls: ssl.SSLContext | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        if settings.secret is None or len(settings.secret) < SECRET_CHARS_MIN:
            raise ConfigError(
                f"[plugin.{NAME}] secret: expected at least {SECRET_CHARS_MIN} characters"
            )
        try:
            self._urls = [check_url(url) for url in dict.fromkeys(settings.urls)]
        except ValueError as error:
            raise ConfigError(f"[plugin.{NAME}] urls: {error}") from error
        self._kinds = kinds_of(settings.events, NAME)
        self._secret = settings.secret
        self._timeout_s = settings.timeout_s
        self._queue_max = settings.queue_max
        self._path = path
        self._tls = tls
        self._now_s = now_s
        self._unwritten: deque[tuple[str, str, bytes]] = deque(maxlen=UNWRITTEN_MAX)
        self._news = trio.Event()
        self._queued = trio.Event()
        self._disk = trio.CapacityLimiter(1)

    def on_event(self, event: Event) -> None:
        """Accept an event for delivery."""
        if event.kind in self._kinds:
            event_id = secrets.token_hex(16)
            self._unwritten.append((event_id, event.kind, event_json(event, id=event_id)))
            self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        queue = await trio.to_thread.run_sync(WebhookQueue, self._path, self._queue_max)
        try:
            async with trio.open_nursery() as nursery:
                for url in self._urls:
                    nursery.start_soon(self._deliver_forever, queue, url)
                nursery.start_soon(self._write_forever, queue)
                task_status.started()
        finally:
            self._write_last(queue)
            queue.close()

    async def _write_forever(self, queue: WebhookQueue) -> NoReturn:
        """Write events to disk as they arrive, those that wait together in one transaction."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            batch = list(self._unwritten)
            self._unwritten.clear()
            try:
                dropped = await trio.to_thread.run_sync(
                    queue.add, self._urls, batch, limiter=self._disk
                )
            except OSError as error:
                self._unwritten.extendleft(reversed(batch))
                log.error(
                    "%s; events that wait in memory: %d",
                    describe_error(error), len(self._unwritten),
                )  # fmt: skip
                self._news.set()
                await trio.sleep(BACKOFF_MIN_S)
                continue
            except trio.Cancelled:
                self._unwritten.extendleft(reversed(batch))  # the thread has not started
                raise
            if dropped:
                log.error("the webhook's queue is full: oldest events dropped: %d", dropped)
            self._queued.set()
            self._queued = trio.Event()

    def _write_last(self, queue: WebhookQueue) -> None:
        """Write the events to disk that are still in memory when the service ends."""
        try:
            queue.add(self._urls, list(self._unwritten))
        except OSError as error:
            log.error("%s; lost events: %d", describe_error(error), len(self._unwritten))

    async def _deliver_forever(self, queue: WebhookQueue, url: str) -> NoReturn:
        failures = 0
        while True:
            queued = self._queued
            waiting = await trio.to_thread.run_sync(queue.first, url, limiter=self._disk)
            if waiting is None:
                await queued.wait()
                continue
            wait_s = await self._deliver(url, waiting, failures)
            if wait_s is None:
                failures = 0
                await trio.to_thread.run_sync(queue.remove, waiting.number, limiter=self._disk)
            else:
                failures += 1
                await trio.sleep(wait_s)

    async def _deliver(self, url: str, waiting: Waiting, failures: int) -> float | None:
        """Try once; return None if the event is acknowledged or dropped, else how long to wait."""
        body, at_s = waiting.body, int(self._now_s())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "distconvd-webhook",
            "X-Distconv-Event": waiting.kind,
            "X-Distconv-Delivery": waiting.event_id,
            "X-Distconv-Signature": signature_of(self._secret, at_s, body),
        }
        asked_s = 0.0
        try:
            with trio.fail_after(self._timeout_s):
                reply = await post(url, body, headers, tls=self._tls)
            if 200 <= reply.status < 300:
                return None
            if reply.status < 500 and reply.status not in (408, 429):
                log.error(
                    "%s answered %d to %s, which is dropped", loggable_url(url), reply.status, waiting.kind,
                    extra=_ids_of(waiting),
                )  # fmt: skip
                return None
            fault = f"it answered {reply.status}"
            after = reply.headers.get("retry-after", "")
            asked_s = float(after) if after.isdecimal() and len(after) < 9 else 0.0
        except trio.TooSlowError:
            fault = f"no reply in {self._timeout_s:g} s"
        except OSError as error:
            fault = describe_error(error) or type(error).__name__
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures, 20))
        wait_s = min(BACKOFF_MAX_S, max(asked_s, backoff_s * random.uniform(0.5, 1.0)))
        log.warning(
            "%s did not acknowledge %s: %s; trying again in %.0f s",
            loggable_url(url), waiting.kind, fault, wait_s,
            extra=_ids_of(waiting),
        )  # fmt: skip
        return wait_s


class _Ids(msgspec.Struct, frozen=True):
    job_id: str | None = None
    engine_id: str | None = None
    attempt: int | None = None


def _ids_of(waiting: Waiting) -> dict[str, object]:
    """Return the ids of a waiting event as fields of a log line."""
    ids = msgspec.json.decode(waiting.body, type=_Ids)
    return {**msgspec.structs.asdict(ids), "delivery": waiting.event_id}


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Register the service."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.webhook]`."""
    registrar.add(NAME, WebhookSettings)


def _make(context: PluginContext, daemon: DaemonAccess) -> Webhook | None:
    settings = context.settings(NAME, WebhookSettings)
    if not settings.urls:
        return None
    queue_path = context.state_file.with_name(context.state_file.name + ".webhook")
    return Webhook(settings, Path(settings.queue_file) if settings.queue_file else queue_path)
