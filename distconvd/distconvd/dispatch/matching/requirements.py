"""Define what a job needs of an engine, what an engine can do, and the front of a queue."""

from typing import NamedTuple

from distconvd.model import Job, canonical_codec


class Requirements(NamedTuple):
    """What a job needs of an engine."""

    codec: str
    requires: frozenset[str]


class Ability(NamedTuple):
    """What decides which jobs an engine can take."""

    codecs: frozenset[str] | None
    """Canonical codecs; None: any."""
    tags: frozenset[str]

    def can_take(self, requirements: Requirements) -> bool:
        """Whether such an engine can do such a job."""
        codec_fits = self.codecs is None or requirements.codec in self.codecs
        return codec_fits and requirements.requires <= self.tags


class Front(NamedTuple):
    """The first job of a requirement queue or of one share queue; any two fronts compare."""

    rank: int
    clock: float
    """The clock of its share: the share with the least one is next."""
    created_us: int
    job_id: str
    share: str


def requirements_of(job: Job) -> Requirements:
    """Return what the job needs of an engine."""
    return Requirements(canonical_codec(job.target_codec), frozenset(job.requires))


def index_tag(requirements: Requirements) -> str | None:
    """Return the tag under which a requirement is indexed; None where it needs no tag."""
    return min(requirements.requires, default=None)
