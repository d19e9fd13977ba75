"""Turns drops in a spool into jobs, and their ends into results: docs/spool.md, as a service.

What is true lies on disk: which drops are ours in `claimed/<owner>/`, which jobs are ours in
`accepted/`. What is kept here (files being watched, ends to be written) is made again from there
after a crash. The file work is `distconv_spool`'s, in one thread at a time; this module only
decides which step a drop takes next, from what the daemon says of it:

- a job: it is accepted;
- the caller's fault: it is rejected, with the daemon's own problem beside it;
- "later" in any form: it stays claimed, and no more are taken from `incoming/` in this round.
"""

import grp
import json
import logging
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar, TypeVarTuple

import msgspec
import trio

from distconv_spool import (
    BadDrop,
    Claim,
    Disk,
    Failure,
    Owner,
    Settler,
    SpoolError,
    create,
    printable,
)
from distconvd import hookimpl
from distconvd.dispatch import Event
from distconvd.edge.problems import type_of
from distconvd.errors import (
    BadRequest,
    CallerError,
    ConfigError,
    DistconvError,
    Forbidden,
    NotFound,
    RequestTimeout,
    TooManyRequests,
)
from distconvd.hookspecs import DaemonAccess, PluginContext, Registrar, ServiceFactory
from distconvd.model import TERMINAL_STATUSES, Job

CLAIMS_MAX = 64
_CATCH_UP_CHUNK = 1024
_RESULTS_CHUNK = 64
_BACKOFF_S_MAX = 30.0

_Found = bytes | CallerError | OSError | None
"""A claim's fields, or why there are none; None: not yet, or not any more."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Submitter(Protocol):
    """What the intake needs of the daemon."""

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """Make a job of a JSON object; return when it is durable. The same key: the same job.

        Raises:
            CallerError: the fields can never be a job.
            DistconvError: (`Unavailable` and its like) not now.
        """
        ...

    async def job(self, job_id: str) -> Job:
        """Return a job as it now stands; raises `NotFound` when this daemon has no such job."""
        ...


@dataclass(slots=True)
class _Round:
    """What became of one batch of claims."""

    accepted: list[tuple[Claim, str]] = field(default_factory=list[tuple[Claim, str]])
    rejected: list[tuple[Claim, bytes]] = field(default_factory=list[tuple[Claim, bytes]])
    failures: list[Failure] = field(default_factory=list[Failure])
    later: bool = False

    def handled(self) -> int:
        return len(self.accepted) + len(self.rejected)


class SpoolIntake:
    """The service; `run` it, and tell it of ended jobs by `job_ended`.

    Args:
        root: the spool's folder; it is made when it is missing.
        submitter: the daemon.
        owner: the name of this daemon's claims; it must stay with the daemon's state.
        group: id of the group that may submit; None: only the daemon's own user.
        settle_s: how long a file that is written in place must stay the same.
        poll_s: time between two looks at an idle spool.
        disk: another file system, for tests.
    """

    def __init__(
        self,
        root: Path,
        submitter: Submitter,
        *,
        owner: str,
        group: int | None = None,
        settle_s: float = 3.0,
        poll_s: float = 1.0,
        disk: Disk | None = None,
    ) -> None:
        self._submitter = submitter
        self._poll_s = poll_s
        self._open: Callable[[], Owner] = lambda: Owner(
            create(root, group=group), owner, group=group, disk=disk
        )
        self._owner: Owner | None = None
        self._drops = Settler(settle_s)
        self._leftovers = Settler(settle_s)
        self._disk_turn = trio.Lock()
        self._told: set[str] = set()
        # Bounded by what the daemon itself remembers: an id for each of its jobs from here.
        self._mine: set[str] = set()
        self._ended: dict[str, Job] = {}
        self._wake = trio.Event()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Serve the spool until cancelled; started once it is open and locked.

        Raises:
            ConfigError: it is no spool, not safe, cannot be opened, or another daemon has this
                owner's name. Later errors of the disk are logged and tried again.
        """
        async with self.opened(), trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_forever)
            task_status.started()
            await self._poll_forever()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open and lock the spool for the time of a block; raises as `run`."""
        try:
            self._owner = await trio.to_thread.run_sync(self._open)
        except (SpoolError, OSError) as error:
            raise ConfigError(f"The spool cannot be served: {error}") from error
        try:
            yield
        finally:
            self._owner.close()
            self._owner = None

    def on_event(self, event: Event) -> None:
        """Hear of an event, after it is durable: the daemon's way to `job_ended`."""
        if event.job_id in self._mine and event.record is not None:
            job = msgspec.json.decode(event.record, type=Job)
            if job.status in TERMINAL_STATUSES:
                self.job_ended(job)

    def job_ended(self, job: Job) -> None:
        """Take note of a job's end, after it is durable; others than the spool's are ignored."""
        if job.job_id in self._mine:
            self._ended[job.job_id] = job
            self._wake.set()

    async def poll(self, now_s: float) -> int:
        """Do one round and return how many drops were brought to an end.

        Args:
            now_s: the present by a monotonic clock; settling is measured with it.

        Raises:
            OSError: the spool cannot be read or made durable; nothing is lost by that.
        """
        owner = self._held()
        found = await self._on_disk(owner.recover, CLAIMS_MAX)
        by_file = {claim.file: claim for claim in found}
        settled = self._leftovers.observe(now_s, [claim.seen for claim in found])
        round_ = await self._process([by_file[seen.name] for seen in settled])
        handled, failures = round_.handled(), round_.failures
        room = CLAIMS_MAX - len(found) + handled
        waiting = iter(self._drops.observe(now_s, await self._on_disk(owner.waiting)))
        while not round_.later and (batch := list(islice(waiting, room))):
            claims, refused = await self._on_disk(owner.claim, batch)
            round_ = await self._process(claims)
            handled += round_.handled()
            room -= len(claims) - round_.handled()
            failures += [*refused, *round_.failures]
        self._tell_new(failures)
        return handled

    # ------------------------------------------------------------------------------- drop by drop

    async def _process(self, claims: Sequence[Claim]) -> _Round:
        """Take each claim one step on; when this returns, what was decided is durable."""
        round_ = _Round()
        owner = self._held()
        read = await self._on_disk(_read_all, owner, claims)
        async with trio.open_nursery() as nursery:
            for claim, found in read:
                if isinstance(found, bytes):
                    # One after the other as far as the decision, so that the oldest drop is the
                    # oldest job; their commits are waited for together.
                    await nursery.start(self._submit, claim, found, round_)
                elif isinstance(found, CallerError):
                    round_.rejected.append((claim, _problem(claim, found)))
                elif isinstance(found, OSError):
                    round_.failures.append(Failure(claim.name, found))
        await self._settle_accounts(round_)
        return round_

    async def _submit(
        self, claim: Claim, fields: bytes, round_: _Round, *, task_status: trio.TaskStatus[None]
    ) -> None:
        task_status.started()
        try:
            job = await self._submitter.submit(fields, idempotency_key=f"spool-{claim.key}")
        except (TooManyRequests, RequestTimeout):
            round_.later = True
        except CallerError as error:
            round_.rejected.append((claim, _problem(claim, error)))
        except DistconvError as error:
            _log.debug("spool: drop %s has to wait: %s", printable(claim.name), error)
            round_.later = True
        else:
            round_.accepted.append((claim, job.job_id))
            await self._take_on(job.job_id)

    async def _take_on(self, job_id: str) -> None:
        """Make a job ours. It may have ended before this, unheard: so look once, afterwards."""
        self._mine.add(job_id)
        job = await self._submitter.job(job_id)
        if job.status in TERMINAL_STATUSES:
            self.job_ended(job)

    async def _settle_accounts(self, round_: _Round) -> None:
        owner = self._held()
        if round_.accepted:
            round_.failures += await self._on_disk(owner.accept, round_.accepted)
        if round_.rejected:
            round_.failures += await self._on_disk(owner.reject, round_.rejected)
        for claim, job_id in round_.accepted:
            _log.info("spool: drop %s is job %s", printable(claim.name), job_id)
        for claim, _ in round_.rejected:
            _log.warning("spool: drop %s is rejected, see rejected/", printable(claim.name))

    # ------------------------------------------------------------------------------------ results

    async def catch_up(self) -> None:
        """Learn from `accepted/` which jobs are ours, and note the ends that have no result yet."""
        owner = self._held()
        ids = owner.accepted_jobs()
        while chunk := await self._on_disk(_with_results, owner, ids):
            for job_id, has_result in chunk:
                try:
                    job = await self._submitter.job(job_id)
                except NotFound:
                    continue  # another daemon's on the same spool, or forgotten by now
                self._mine.add(job_id)
                if job.status in TERMINAL_STATUSES and not has_result:
                    self.job_ended(job)

    async def publish_results(self) -> None:
        """Write the results of all ends noted so far; raises `OSError`, and then loses none."""
        owner = self._held()
        while batch := list(islice(self._ended.items(), _RESULTS_CHUNK)):
            records = [(job_id, _record(job)) for job_id, job in batch]
            await self._on_disk(owner.publish_results, records)
            for job_id, job in batch:
                # A retried job may have ended again in the meantime: that end is still to write.
                if self._ended[job_id] is job:
                    del self._ended[job_id]

    # -------------------------------------------------------------------------------------- loops

    async def _poll_forever(self) -> NoReturn:
        while True:
            handled = await _until_it_works(lambda: self.poll(trio.current_time()), self._poll_s)
            if not handled:
                await trio.sleep(self._poll_s)

    async def _publish_forever(self) -> NoReturn:
        await _until_it_works(self.catch_up, self._poll_s)
        while True:
            self._wake = trio.Event()
            await _until_it_works(self.publish_results, self._poll_s)
            await self._wake.wait()

    # ------------------------------------------------------------------------------------ helpers

    def _held(self) -> Owner:
        assert self._owner is not None, "the spool is opened first"
        return self._owner

    async def _on_disk(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        async with self._disk_turn:
            return await trio.to_thread.run_sync(work, *args)

    def _tell_new(self, failures: Iterable[Failure]) -> None:
        """Log each trouble when it begins, not at every round that it lasts."""
        now = {f"{printable(failure.name)}: {failure.error.strerror}" for failure in failures}
        for text in sorted(now - self._told):
            _log.error("spool: cannot handle drop %s; it is kept and tried again", text)
        self._told = now


async def _until_it_works(step: Callable[[], Awaitable[_T]], wait_s: float) -> _T:
    """Do a step again, ever more slowly, while the disk refuses it; told once a refusal."""
    told = ""
    while True:
        try:
            return await step()
        except OSError as error:
            if str(error) != told:
                told = str(error)
                _log.error("spool: the disk refuses: %s; nothing is lost, trying again", told)
        await trio.sleep(wait_s)
        wait_s = min(wait_s * 2, _BACKOFF_S_MAX)


def _read_all(owner: Owner, claims: Sequence[Claim]) -> list[tuple[Claim, _Found]]:
    return [(claim, _read(owner, claim)) for claim in claims]


def _read(owner: Owner, claim: Claim) -> _Found:
    try:
        return owner.read(claim)
    except BadDrop as error:
        return BadRequest(str(error))
    except PermissionError:
        return Forbidden("The daemon may not read this file: let its group read it (chmod g+r).")
    except FileNotFoundError:
        return None
    except OSError as error:
        return error


def _with_results(owner: Owner, job_ids: Iterator[str]) -> list[tuple[str, bool]]:
    return [(job_id, owner.has_result(job_id)) for job_id in islice(job_ids, _CATCH_UP_CHUNK)]


def _record(job: Job) -> bytes:
    return msgspec.json.format(msgspec.json.encode(job), indent=2) + b"\n"


def _problem(claim: Claim, error: CallerError) -> bytes:
    """The problem document that the API would have answered with, and the drop's name."""
    document: dict[str, object] = {
        "type": type_of(type(error)),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.field is not None:
        document["field"] = error.field
    # ASCII, and the name escaped: a name may hold any bytes, and people print this on terminals.
    document["drop"] = printable(claim.name)
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.spool-intake]`; the spool itself is named by `--spool-dir`."""

    owner: str | None = None
    """Name of this daemon's claims, which must stay with its state. Default: the host's name."""
    group: str | None = None
    """The group whose members may submit. Default: none, only the daemon's own user may."""
    settle_s: float = 3.0
    """How long a file that is written in place must stay the same to count as complete."""
    poll_s: float = 1.0
    """Time between two looks at an idle spool."""


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Offer the intake, for a daemon that has a spool."""
    registrar.add("spool-intake", _make)


def _make(context: PluginContext, daemon: DaemonAccess) -> SpoolIntake | None:
    if context.spool_dir is None:
        return None
    settings = context.settings("spool-intake", SpoolSettings)
    return SpoolIntake(
        context.spool_dir,
        daemon,
        owner=settings.owner or _host_name(),
        group=None if settings.group is None else _group_id(settings.group),
        settle_s=settings.settle_s,
        poll_s=settings.poll_s,
    )


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:64] or "daemon"


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"[plugin.spool-intake]: there is no group {name!r}.") from None
