"""Drops: each is taken one step on, by what the daemon says of it.

- a job: it is accepted;
- the caller's fault: it is rejected, with the daemon's own problem beside it;
- a plugin, or the daemon itself, fails on it: rejected too, as it would fail again, and the next drop
  must not wait for it;
- "later" in any form: it stays claimed, and no more are taken from `incoming/` in this round.
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
_FAILED = "The plugin 'spool-intake' failed on this drop; the daemon's log tells how."

_Found = bytes | DistconvError | OSError | None
"""A claim's fields, or why there are none; None: not yet, or not any more."""


class SubmitClient(Protocol):
    """What the drops need of the daemon."""

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """Make a job of a JSON object; return when it is durable. The same key: the same job.

        Raises:
            CallerError: the fields can never be a job.
            DistconvError: (`Unavailable` and its like) not now.
        """
        ...


@dataclass(slots=True)
class _Round:
    """What became of one batch of claims."""

    accepted: list[tuple[Claim, str]] = field(default_factory=list[tuple[Claim, str]])
    rejected: list[tuple[Claim, bytes]] = field(default_factory=list[tuple[Claim, bytes]])
    failures: list[Failure] = field(default_factory=list[Failure])
    later: bool = False

    moved: int = 0
    """How many were brought to an end: what the disk refuses to move is tried again."""


class Drops:
    """Takes drops in, round by round.

    Args:
        hold: the spool, opened before `poll` is called.
        admission: the daemon.
        take_on: is told of each new job, before its drop is moved.
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
        """Do one round and return how many drops were brought to an end.

        Args:
            now_s: the present by a monotonic clock; settling is measured with it.

        Raises:
            OSError: the spool cannot be read or made durable; nothing is lost by that.
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
        """Take each claim one step on; when this returns, what was decided is durable."""
        round_ = _Round()
        read = await self._access.do(_read_all, claims)
        async with trio.open_nursery() as nursery:
            for claim, found in read:
                if isinstance(found, bytes):
                    # One after the other as far as the decision, so that the oldest drop is the
                    # oldest job; their commits are waited for together.
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
            log.debug("spool: drop %s has to wait: %s", printable(claim.name), error)
            round_.later = True
        except OSError as error:
            round_.failures.append(Failure(claim.name, error))
        except Exception:  # noqa: BLE001 - logged; the next drop must not wait for it
            log.exception("spool: drop %s: the daemon failed on it", printable(claim.name))
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
        """Log each trouble when it begins, not at every round that it lasts."""
        now = {f"{printable(failure.name)}: {failure.error.strerror}" for failure in failures}
        for text in sorted(now - self._logged):
            log.error("spool: cannot handle drop %s; it is kept and tried again", text)
        self._logged = now


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
    except Exception:  # noqa: BLE001 - as above
        log.exception("spool: drop %s: the daemon cannot read it", printable(claim.name))
        return PluginFailed(_FAILED)


def _problem(claim: Claim, error: DistconvError) -> bytes:
    """Return the problem document that the API would have answered with, and the drop's name."""
    # ASCII, and the name escaped: a name may hold any bytes, and people print this on terminals.
    document = document_of(error) | {"drop": printable(claim.name)}
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
