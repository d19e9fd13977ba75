"""Describe the routes about the daemon itself as `edge.doc.Doc`."""

from typing import Any

import msgspec

from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.errors import Unavailable
from distconvd.model import EngineState, JobStatus
from distconvd.plugin_host.loading import LoadedPlugin


class ReadyReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether changes are accepted; if not, each cause with its reason."""

    ready: bool
    causes: dict[str, str]
    warnings: dict[str, str] = {}
    """What a person should look at although changes are accepted; omitted if there is nothing."""


class VersionReply(msgspec.Struct, frozen=True, kw_only=True):
    """The name and version of the program."""

    name: str = "distconvd"
    version: str


class QueueCounts(msgspec.Struct, frozen=True):
    """Pending jobs: those that may be assigned now, and those that are delayed."""

    ready: int
    delayed: int
    oldest_s: float | None = None
    """Age in seconds of the oldest job that may be assigned now; null if there is no such job."""


class StatusReply(msgspec.Struct, frozen=True):
    """Counts of jobs and engines."""

    version: str
    uptime_s: float
    jobs: dict[str, int]
    """By status."""
    queue: QueueCounts
    engines: dict[str, int]
    """By state; a state without engines is omitted."""
    not_ready: dict[str, str]


RETRY_AFTER_S = "1"
"""The header of `/readyz` while the daemon is not ready."""
_READY = ReadyReply(ready=True, causes={})
_NOT_READY = ReadyReply(ready=False, causes={"draining": "the daemon is stopping"})

OK = Doc({200: Answer("The daemon is alive.", str, "text/plain", example="OK")})
READY = Doc(
    {
        200: Answer("Changes are accepted.", ReadyReply, example=_READY),
        503: Answer(
            "Changes are not accepted, with the causes.",
            ReadyReply,
            headers={"Retry-After": "When to ask again, in seconds."},
            example=_NOT_READY,
        ),
    }
)
VERSION = Doc({200: Answer("The version.", VersionReply, example=VersionReply(version="0.1.0"))})
STATUS = Doc(
    {
        200: Answer(
            "The counts.",
            StatusReply,
            example=StatusReply(
                "0.1.0",
                12.3,
                {status.value: 0 for status in JobStatus},
                QueueCounts(0, 0),
                {EngineState.IDLE.value: 2},
                {},
            ),
        )
    }
)
METRICS = Doc({200: Answer("The metrics.", str, "text/plain; version=0.0.4; charset=utf-8")})
PLUGINS = Doc(
    {
        200: Answer(
            "The plugins.",
            list[LoadedPlugin],
            example=[
                LoadedPlugin(
                    "api-key",
                    "distconv_plugins.auth_api_key",
                    "0.1.0",
                    ["distconvd_register_authenticators"],
                )
            ],
        )
    }
)
OPENAPI = Doc({200: Answer("This document.", dict[str, Any])})
EVENTS = Doc(
    {
        200: Answer(
            "Events as they happen, until the daemon stops.",
            str,
            "text/event-stream",
            {"Cache-Control": "Always `no-store`."},
        )
    },
    parameters=(
        Parameter("job", "query", "Only those of this job."),
        Parameter("kind", "query", "Only these kinds, separated by commas.", str, "job.completed"),
        Parameter("Last-Event-ID", "header", "Continue after this event.", str, "1704067200123042"),
    ),
)
WEBSOCKET = Doc(
    {101: Answer("The connection is a websocket now.", None, None)},
    (Unavailable,),
    description="Subprotocol `v1.distconv`; docs/protocol.md describes the messages.",
)
