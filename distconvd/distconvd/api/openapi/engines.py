"""Describe the routes of `/engines/…` and `/assign_job/` as `edge.doc.Doc`."""

import msgspec

from distconvd.api.openapi import examples
from distconvd.api.openapi.jobs import PREFER, a_job
from distconvd.edge.doc import Answer, Doc
from distconvd.errors import CommitFailed, NotFound
from distconvd.model import (
    AssignRequest,
    BenchmarkReport,
    EngineRecord,
    EngineState,
    Heartbeat,
    HeartbeatReply,
)


class EngineView(EngineRecord, frozen=True, kw_only=True):
    """An engine as on the wire: its record, its state and jobs, and its last heartbeat.

    Fields of its heartbeats that this version does not know are included as well.
    """

    status: EngineState = EngineState.IDLE  # pyright: ignore[reportIncompatibleVariableOverride] - the record's own `status` is `reported_status` here
    reported_status: str
    jobs: list[str]
    """The ids of the jobs assigned to it."""
    reserved: list[str]
    """The ids of the jobs reserved for it until it asks for work."""
    last_seen_at: int
    free_gb: float | None
    cpu_percent: float | None
    temperature_c: float | None


class Message(msgspec.Struct, frozen=True):
    """The original's sentence."""

    message: str


_ENGINE = EngineView(
    engine_id=examples.ENGINE_ID,
    supported_codecs=["h264", "vp9"],
    storage_capacity_gb=500.0,
    streaming_support=True,
    benchmark_time=125.5,
    registered_at=1704067200500,
    reported_status="idle",
    jobs=[],
    reserved=[],
    last_seen_at=1704067201500,
    free_gb=412.5,
    cpu_percent=3.0,
    temperature_c=None,
)
_AN_ENGINE = {200: Answer("The engine.", EngineView, example=_ENGINE)}

HEARTBEAT = Doc(
    {
        200: Answer(
            "A verdict on each attempt that the heartbeat named.",
            HeartbeatReply,
            example=HeartbeatReply(
                f"Heartbeat received from engine {examples.ENGINE_ID}", [examples.KEEP], "busy"
            ),
        )
    },
    (CommitFailed,),
    request=Heartbeat,
    examples=(
        Heartbeat(
            examples.ENGINE_ID,
            "transcoder",
            ["h264", "vp9"],
            "idle",
            500.0,
            streaming_support=True,
        ),
        Heartbeat(examples.ENGINE_ID, jobs=[examples.ACTIVE]),
    ),
)
BENCHMARK = Doc(
    {
        200: Answer(
            "The benchmark is recorded.",
            Message,
            example=Message(f"Benchmark result received from engine {examples.ENGINE_ID}"),
        )
    },
    (NotFound, CommitFailed),
    request=BenchmarkReport,
    examples=(BenchmarkReport(examples.ENGINE_ID, 125.5, {"vp9": 300.0}),),
)
ASSIGN = Doc(
    {
        **a_job("A job, now assigned; `attempt` is its fencing token.", examples.ASSIGNED),
        204: Answer("There is no job for the engine.", None, None),
    },
    (NotFound, CommitFailed),
    (PREFER,),
    AssignRequest,
    request_required=False,
    examples=(AssignRequest(examples.ENGINE_ID), AssignRequest()),
)
LIST = Doc({200: Answer("All engines, by id.", list[EngineView], example=[_ENGINE])})
GET = Doc(_AN_ENGINE, (NotFound,))
CHANGE = Doc(_AN_ENGINE, (NotFound, CommitFailed))
