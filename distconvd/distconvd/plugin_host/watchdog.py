"""Time the synchronous calls into plugins; report those that are slow or block the daemon.

These calls run in the daemon's one thread: a slow one makes every request wait, and nothing can
interrupt it. So a call over the threshold is logged and counted when it returns, and a separate thread
logs one that does not return, with the line that it has reached. That thread also logs anything else
that blocks the event loop, such as a service that waits without `await`, which it names.
"""

import logging
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn, ParamSpec, TypeVar

import trio

from distconvd.faults import HookFault, reraise_if_cancelled
from distconvd.policy import Policy, SharingPolicy

log = logging.getLogger("distconvd.plugins")

P = ParamSpec("P")
T = TypeVar("T")

BLOCKED_S = 5.0
"""A call that has not returned after this time is reported while it runs."""
BEAT_S = 1.0
"""How often the event loop shows that it runs."""
QUIET_S = 10.0
"""At most one line per hook in this time; further slow calls are counted."""


class _Running(NamedTuple):
    plugin: str
    hook: str
    began_s: float


class HookWatch:
    """Wraps functions of plugins so that they are timed.

    Args:
        slow_ms: a call that takes this long or longer is slow.
    """

    def __init__(self, slow_ms: float) -> None:
        self._slow_s = slow_ms / 1000
        self.slow: Counter[tuple[str, str]] = Counter()
        """How many calls were slow, by plugin and hook."""
        self._running: _Running | None = None
        self._beat_s: float | None = None
        """When `beat_forever` last ran; None while it does not run."""
        self._tasks: dict[str, trio.lowlevel.Task] = {}
        self._last_logged_s: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}

    def timed(self, plugin: str, hook: str, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that does the same and is timed; `plugin` and `hook` name it in logs.

        If it raises something that is not an `Exception`, `HookFault` is raised instead, so that
        callers can catch it.
        """

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            outer, began_s = self._running, time.perf_counter()
            self._running = _Running(plugin, hook, began_s)
            try:
                return function(*args, **kwargs)
            except Exception:
                raise
            except BaseException as error:
                reraise_if_cancelled(error)
                raise HookFault(f"it raised {error!r}") from error
            finally:
                self._running = outer
                took_s = time.perf_counter() - began_s
                if took_s >= self._slow_s:
                    self._note(plugin, hook, took_s)

        return call

    def timed_policy(self, name: str, policy: Policy) -> Policy:
        """Return a policy that decides the same and whose calls are timed."""
        return _TimedPolicy(name, policy, self)

    @contextmanager
    def names_this_task(self, name: str) -> Generator[None]:
        """While the block runs, blame `name` if this task, or one below it, blocks the event loop."""
        self._tasks[name] = trio.lowlevel.current_task()
        try:
            yield
        finally:
            del self._tasks[name]

    def _running_task(self) -> str | None:
        """Return the name of the task that is running now, or in which one below it is."""
        return next((name for name, task in self._tasks.items() if _is_running(task)), None)

    async def beat_forever(self) -> NoReturn:
        """Show `alarm` that the event loop runs."""
        try:
            while True:
                self._beat_s = time.perf_counter()
                await trio.sleep(BEAT_S)
        finally:
            self._beat_s = None

    @contextmanager
    def alarm(self, blocked_s: float = BLOCKED_S) -> Generator[None]:
        """While the block runs, report whatever blocks this thread: calls that do not return, and tasks
        that keep `beat_forever`, which the block must run, from its first or its next beat."""
        over = threading.Event()
        caller = threading.get_ident()
        self._beat_s = time.perf_counter()

        def watch_until_over() -> None:
            last_logged: _Running | float | None = None
            while not over.wait(blocked_s / 4):
                running, beat_s = self._running, self._beat_s
                blocking = beat_s if running is None else running
                since_s = beat_s if running is None else running.began_s
                if blocking is None or since_s is None or blocking == last_logged:
                    continue
                if time.perf_counter() - since_s >= blocked_s:
                    last_logged = blocking
                    _log_blocked(running, self._running_task(), blocked_s, caller)

        thread = threading.Thread(target=watch_until_over, name="hook-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _note(self, plugin: str, hook: str, took_s: float) -> None:
        at, now_s = (plugin, hook), time.perf_counter()
        self.slow[at] += 1
        if now_s - self._last_logged_s.get(at, -QUIET_S) < QUIET_S:
            self._suppressed[at] = self._suppressed.get(at, 0) + 1
            return
        self._last_logged_s[at] = now_s
        suppressed = self._suppressed.pop(at, 0)
        plural = "" if suppressed == 1 else "s"
        also = (
            f", and {suppressed} more slow call{plural} since the last such line"
            if suppressed
            else ""
        )
        log.warning(
            "plugin %s is slow: %s took %.0f ms, and every request waited%s",
            plugin, hook, took_s * 1000, also,
        )  # fmt: skip


class _TimedPolicy:
    """See `HookWatch.timed_policy`; it has `share` if the policy has."""

    def __init__(self, name: str, policy: Policy, watch: HookWatch) -> None:
        self.name = name
        self.policy = policy
        self.place = watch.timed(name, "place", policy.place)
        if isinstance(policy, SharingPolicy):
            self.share = watch.timed(name, "share", policy.share)


def _is_running(task: trio.lowlevel.Task) -> bool:
    """Whether a task, or one in a nursery of it, is what its event loop runs now.

    It is called by another thread, while the event loop stands still.
    """
    if getattr(task.coro, "cr_running", False):  # a generator has none
        return True
    below = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return any(_is_running(child) for child in below)


def _log_blocked(running: _Running | None, task: str | None, blocked_s: float, thread: int) -> None:
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage] - the documented way to another thread's stack
    where = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""
    if running is None and task is not None:
        log.error("%s has blocked the daemon for over %.0f s, at:\n%s", task, blocked_s, where)
        return
    if running is None:
        log.error("the daemon has been blocked for over %.0f s, at:\n%s", blocked_s, where)
        return
    log.error(
        "plugin %s has blocked the daemon for over %.0f s in %s:\n%s",
        running.plugin, blocked_s, running.hook, where,
    )  # fmt: skip
