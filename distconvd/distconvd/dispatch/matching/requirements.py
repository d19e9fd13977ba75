"""Define what a job needs of an engine, what an engine can do, and the front of a queue."""

from typing import NamedTuple

from distconvd.model import EngineRecord, Job, canonical_codec


class Requirements(NamedTuple):
    """What a job needs of an engine."""

    codec: str
    requires: frozenset[str]
    """Tags, and marks of capabilities (`capability_mark`)."""


class Ability(NamedTuple):
    """What decides which jobs an engine can take."""

    codecs: frozenset[str] | None
    """Canonical codecs; None: any."""
    tags: frozenset[str]
    """Its tags, and marks of its capabilities."""

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
    requires = frozenset(job.requires)
    if job.needs:
        requires |= frozenset(map(capability_mark, job.needs))
    return Requirements(canonical_codec(job.target_codec), requires)


def ability_of(record: EngineRecord) -> Ability:
    """Return what decides which jobs the engine can take."""
    codecs = frozenset(map(canonical_codec, record.supported_codecs)) or None
    marks = map(capability_mark, record.capabilities or ())
    return Ability(codecs, frozenset(record.tags).union(marks))


def capability_mark(name: str) -> str:
    """Return what stands for a capability among tags; no tag has a slash."""
    return f"/{name}"


def split_marks(requires: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the tags, and the names of the capabilities, among requirements."""
    tags = sorted(word for word in requires if not word.startswith("/"))
    return tags, sorted(word[1:] for word in requires if word.startswith("/"))


def index_tag(requirements: Requirements) -> str | None:
    """Return the tag under which a requirement is indexed; None where it needs no tag."""
    return min(requirements.requires, default=None)
