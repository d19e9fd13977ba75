"""Define the dispatcher's settings, with units and defaults; see also the user guide."""

from typing import Annotated

import msgspec

from distconvd.model import NotNegative, NotNegativeCount, Positive, PositiveCount

HISTORY_MAX = 64
"""Ended attempts kept for each job; the oldest are dropped and counted."""
HistoryCount = Annotated[int, msgspec.Meta(ge=0, le=HISTORY_MAX)]
"""What is counted in a job's history cannot be more than a history contains."""


class DispatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How jobs are leased, retried and matched. All durations in seconds."""

    lease_s: Positive = 60.0
    """An attempt that no heartbeat, progress report or websocket renews for this long is lost."""
    start_grace_s: NotNegative = 60.0
    """For this long after the daemon's start no lease expires and no engine is offline."""
    engine_timeout_s: Positive = 60.0
    """An engine that sends no heartbeat for this long is offline."""
    pickup_s: NotNegative = 15.0
    """How long a job stays reserved for a polling engine that does not ask."""
    redeliver_s: NotNegative = 5.0
    """An assignment that the engine's heartbeats do not name after this is delivered again."""
    retry_backoff_s: NotNegative = 5.0
    """The first retry is immediate, the next waits this long, then twice that; 0: no waits."""
    retry_backoff_max_s: NotNegative = 600.0
    retry_elsewhere_s: NotNegative = 60.0
    """How long a retry waits for an engine that has not failed the job, while there is one."""
    lost_attempts_max: HistoryCount = 3
    """A job that outlives this many engines fails as poison; 64 at most."""
    transient_attempts_max: HistoryCount = 20
    """Transient failures beyond this are charged as retries, so that every job ends; 64 at most."""
    quarantine_after: NotNegativeCount = 5
    """An engine that fails this many different jobs in a row is quarantined; 0: never."""
    quarantine_s: NotNegative = 300.0
    idempotency_keys_max: NotNegativeCount = 100_000
    """The oldest idempotency keys are forgotten beyond this count."""
    finished_jobs_max: NotNegativeCount = 100_000
    """Ended jobs beyond this number move to the archive, in the order in which they ended."""
    finished_age_s: NotNegative = 2_592_000.0
    """Ended jobs older than this (30 days) move to the archive."""
    jobs_max: PositiveCount = 2_000_000
    """Submissions beyond this number of stored jobs are refused with 503."""
    engines_max: PositiveCount = 10_000
    lookahead: PositiveCount = 16
    """How many jobs of one requirement a policy is asked about when it holds the first ones."""
