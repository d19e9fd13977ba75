"""A demand: what a job asks of an engine; and the first in its line."""

from typing import NamedTuple

from distconvd.model import Job, canonical_codec


class Requirements(NamedTuple):
    """What a job needs of an engine."""

    codec: str
    requires: frozenset[str]


class Front(NamedTuple):
    """The first in line of a demand, or of one share of it; heads of any two lines compare."""

    rank: int
    clock: float
    """Of its share: whose is least has its turn."""
    created_us: int
    job_id: str
    share: str


def requirements_of(job: Job) -> Requirements:
    """Return what the job needs of an engine."""
    return Requirements(canonical_codec(job.target_codec), frozenset(job.requires))


def index_tag(requirements: Requirements) -> str | None:
    """Return the one of a demand's tags that it is filed under; None where it needs none."""
    return min(requirements.requires, default=None)
