"""Ask the policy, and decide without it where it raises or answers nonsense."""

import logging
from collections.abc import Callable
from functools import partial

from distconvd.dispatch.answers import checked_answer
from distconvd.dispatch.matching import AvailableEngines
from distconvd.dispatch.matching.queue import ONE_SHARE
from distconvd.model import Job
from distconvd.policy import Hold, Place, Policy, Share, SharingPolicy

log = logging.getLogger("distconvd.dispatch")


class GuardedPolicy:
    """A policy that always has a valid answer.

    Args:
        policy: decides.
        fallback: decides where `policy` fails; usually the default policy.
    """

    def __init__(self, policy: Policy, fallback: Policy) -> None:
        self.policy = policy
        self._fallback = fallback
        self.failures = 0
        """How often the policy had no valid answer."""
        self.share_of: Callable[[Job], Share] | None = None
        """What returns the share of a job; None if the policy does not divide jobs into shares."""
        if isinstance(policy, SharingPolicy):
            self.share_of = partial(self._share_of, policy)

    def place(self, job: Job, engines: AvailableEngines, now_ms: int) -> Place | Hold:
        """Ask where a job goes; the fallback decides if the answer is not valid."""
        try:
            answer: object = self.policy.place(job, engines, now_ms)
            return checked_answer(answer, engines)
        except (Exception, SystemExit):
            self.failures += 1
            log.exception(
                "policy %s failed for a job; the default policy decides this one",
                _name_of(self.policy),
                extra={"job_id": job.job_id},
            )
        return self._fallback.place(job, engines, now_ms)

    def _share_of(self, policy: SharingPolicy, job: Job) -> Share:
        """Ask for the share of a job; it is the default share if the answer is not valid."""
        try:
            answer: object = policy.share(job)
            if isinstance(answer, Share) and _is_proper(*answer):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
                return answer
            raise ValueError(f"it answered {answer!r}, which is not a share with a cost above 0")
        except (Exception, SystemExit):
            self.failures += 1
            log.exception(
                "policy %s failed to name the share of a job; the job counts for the default share",
                _name_of(policy),
                extra={"job_id": job.job_id},
            )
        return ONE_SHARE


def _name_of(policy: Policy) -> str:
    """Return the name of a policy in logs: that under which it is registered, else its class's."""
    return str(getattr(policy, "name", type(policy).__name__))


def _is_proper(name: object, cost: object) -> bool:
    """Whether a share is what its type promises; a plugin may answer anything."""
    return isinstance(name, str) and isinstance(cost, int | float) and 0 < cost < 1e15
