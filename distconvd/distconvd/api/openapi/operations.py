"""What the routes of the daemon itself take and answer, as types; see `edge.doc`."""

from typing import Any

import msgspec

from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.errors import Unavailable
from distconvd.model import EngineState, JobStatus
from distconvd.plugin_host.loading import LoadedPlugin


class ReadyReply(msgspec.Struct, frozen=True):
    """Whether changes are accepted, and if not, each cause with its reason."""

    ready: bool
    causes: dict[str, str]


class VersionReply(msgspec.Struct, frozen=True, kw_only=True):
    """What runs here."""

    name: str = "distconvd"
    version: str


class QueueCounts(msgspec.Struct, frozen=True):
    """Pending jobs: those that may go at once, and those that wait for a time."""

    ready: int
    delayed: int
    oldest_s: float | None = None
    """Age in seconds of the oldest job that may go; null without any."""


class StatusReply(msgspec.Struct, frozen=True):
    """Counts at a glance."""

    version: str
    uptime_s: float
    jobs: dict[str, int]
    """By status."""
    queue: QueueCounts
    engines: dict[str, int]
    """By state, those with none left out."""
    not_ready: dict[str, str]


RETRY_AFTER_S = "1"
"""What `/readyz` says while it is red."""
_READY = ReadyReply(ready=True, causes={})
_RED = ReadyReply(ready=False, causes={"draining": "the daemon is stopping"})

OK = Doc({200: Answer("It answers.", str, "text/plain", example="OK")})
READY = Doc(
    {
        200: Answer("Changes are accepted.", ReadyReply, example=_READY),
        503: Answer(
            "They are not, and why.",
            ReadyReply,
            headers={"Retry-After": "Seconds after which to ask again."},
            example=_RED,
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
        Parameter("Last-Event-ID", "header", "Go on after this one.", str, "1704067200123042"),
    ),
)
WEBSOCKET = Doc(
    {101: Answer("The connection is a websocket now.", None, None)},
    (Unavailable,),
    description="Subprotocol `v1.distconv`; the messages are told in docs/protocol.md.",
)
