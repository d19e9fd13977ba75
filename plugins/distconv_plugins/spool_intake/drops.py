"""Submit the spool's drops, and move each according to the daemon's answer.

- A job: the drop is accepted.
- The caller's fault: it is rejected, with the daemon's problem document next to it.
- A plugin, or the daemon itself, fails on it: rejected too, because it would fail again, and the
  next drop must not wait for it.
- "Later" in any form: it stays claimed, and no more drops are claimed in this round.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import trio

from distconv_plugins.shared.spool_worker import SpoolAccess, log
from distconv_spool import BadDrop, Claim, Failure, Owner, StabilityTracker, printable
from distconvd.errors import (
    BadRequest,
    CallerError,
    DistconvError,
    Forbidden,
    PluginFailed,
    RequestTimeout,
    TooManyRequests,
)
from distconvd.model import Job
from distconvd.plugin_api import document_of

CLAIMS_MAX = 64
_FAILED = "The plugin 'spool-intake' failed on this drop; see the daemon's log."

_Found = bytes | DistconvError | OSError | None
"""A claim's fields, or why it has none; None if it is not stable yet or was removed."""


class SubmitClient(Protocol):
    """The part of the daemon that the drops need."""

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """Create a job from a JSON object, durably; the same key always gives the same job.

        Raises:
            CallerError: the fields can never be a job.
            DistconvError: (`Unavailable` and the like) not now.
        """
        ...


@dataclass(slots=True)
class _Round:
    """The results of one batch of claims."""

    accepted: list[tuple[Claim, str]] = field(default_factory=list[tuple[Claim, str]])
    rejected: list[tuple[Claim, bytes]] = field(default_factory=list[tuple[Claim, bytes]])
    failures: list[Failure] = field(default_factory=list[Failure])
    later: bool = False

    moved: int = 0
    """How many were moved: those that the disk could not move are tried again."""


class Drops:
    """Takes drops in, round by round.

    Args:
        access: the spool, opened before `poll` is called.
        admission: the daemon.
        take_on: called with each new job, before its drop is moved.
        settle_s: how long a file that is written in place must stay the same.
    """

    def __init__(
        self,
        access: SpoolAccess,
        admission: SubmitClient,
        take_on: Callable[[Job], Awaitable[None]],
        settle_s: float,
    ) -> None:
        self._access = access
        self._admission = admission
        self._take_on = take_on
        self._incoming = StabilityTracker(settle_s)
        self._leftovers = StabilityTracker(settle_s)
        self._logged: set[str] = set()

    async def poll(self, now_s: float) -> int:
        """Do one round and return how many drops were accepted or rejected.

        Args:
            now_s: the present by a monotonic clock; stability is measured with it.

        Raises:
            OSError: the spool cannot be read or made durable; nothing is lost.
        """
        found = await self._access.do(Owner.recover, CLAIMS_MAX)
        by_file = {claim.file: claim for claim in found}
        stable = self._leftovers.observe(now_s, [claim.observed for claim in found])
        round_ = await self._process([by_file[observed.name] for observed in stable])
        handled, failures = round_.moved, round_.failures
        capacity = CLAIMS_MAX - len(found) + handled
        waiting = iter(self._incoming.observe(now_s, await self._access.do(Owner.waiting)))
        while not round_.later and (batch := list(islice(waiting, capacity))):
            claims, refused = await self._access.do(Owner.claim, batch)
            round_ = await self._process(claims)
            handled += round_.moved
            capacity -= len(claims) - round_.moved
            failures += [*refused, *round_.failures]
        self._log_new(failures)
        return handled

    async def _process(self, claims: Sequence[Claim]) -> _Round:
        """Submit each claim and move its file; the decisions are durable when this returns."""
        round_ = _Round()
        read = await self._access.do(_read_all, claims)
        async with trio.open_nursery() as nursery:
            for claim, found in read:
                if isinstance(found, bytes):
                    # The decisions are made one after the other, so that the oldest drop becomes
                    # the oldest job; the commits are awaited together.
                    await nursery.start(self._submit, claim, found, round_)
                elif isinstance(found, DistconvError):
                    round_.rejected.append((claim, _problem(claim, found)))
                elif isinstance(found, OSError):
                    round_.failures.append(Failure(claim.name, found))
        await self._move(round_)
        return round_

    async def _submit(
        self, claim: Claim, fields: bytes, round_: _Round, *, task_status: trio.TaskStatus[None]
    ) -> None:
        task_status.started()
        try:
            job = await self._admission.submit(fields, idempotency_key=f"spool-{claim.key}")
            await self._take_on(job)
        except (TooManyRequests, RequestTimeout):
            round_.later = True
        except (CallerError, PluginFailed) as error:
            round_.rejected.append((claim, _problem(claim, error)))
        except DistconvError as error:
            log.debug("spool: drop %s must wait: %s", printable(claim.name), error)
            round_.later = True
        except OSError as error:
            round_.failures.append(Failure(claim.name, error))
        except Exception:  # noqa: BLE001 - logged; the next drop must not wait for it
            log.exception("spool: the daemon failed on drop %s", printable(claim.name))
            round_.rejected.append((claim, _problem(claim, PluginFailed(_FAILED))))
        else:
            round_.accepted.append((claim, job.job_id))

    async def _move(self, round_: _Round) -> None:
        if round_.accepted:
            round_.failures += await self._access.do(Owner.accept, round_.accepted)
        if round_.rejected:
            round_.failures += await self._access.do(Owner.reject, round_.rejected)
        stuck = {failure.name for failure in round_.failures}
        accepted = [(claim, job_id) for claim, job_id in round_.accepted if claim.file not in stuck]
        rejected = [claim for claim, _ in round_.rejected if claim.file not in stuck]
        round_.moved = len(accepted) + len(rejected)
        for claim, job_id in accepted:
            log.info("spool: drop %s is job %s", printable(claim.name), job_id)
        for claim in rejected:
            log.warning("spool: drop %s is rejected, see rejected/", printable(claim.name))

    def _log_new(self, failures: Iterable[Failure]) -> None:
        """Log each failure when it begins, not at every round while it lasts."""
        now = {f"{printable(failure.name)}: {failure.error.strerror}" for failure in failures}
        for text in sorted(now - self._logged):
            log.error("spool: drop %s; it is kept and tried again", text)
        self._logged = now


def _read_all(owner: Owner, claims: Sequence[Claim]) -> list[tuple[Claim, _Found]]:
    return [(claim, _read(owner, claim)) for claim in claims]


def _read(owner: Owner, claim: Claim) -> _Found:
    try:
        return owner.read(claim)
    except BadDrop as error:
        return BadRequest(str(error))
    except PermissionError:
        return Forbidden(
            "The daemon has no permission to read this file: let its group read it (chmod g+r)."
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    except Exception:  # noqa: BLE001 - as above
        log.exception("spool: the daemon cannot read drop %s", printable(claim.name))
        return PluginFailed(_FAILED)


def _problem(claim: Claim, error: DistconvError) -> bytes:
    """Return the problem document that the API would have sent, with the drop's name."""
    # ASCII, with the name escaped: a name may be any bytes, and people print this on terminals.
    document = document_of(error) | {"drop": printable(claim.name)}
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
