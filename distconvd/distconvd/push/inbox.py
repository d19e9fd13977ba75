"""Handle an engine's websocket messages: each is one command, answered after its commit.

The bodies, their checks, the commands and who may report are those of HTTP (`api.reporting`). A
message without a readable `id` cannot be answered and raises `Unreadable`; any other error is
reported in its ack.
"""

import logging
from typing import Any

import msgspec

from distconvd.api.decode import decode
from distconvd.api.known_fields import unknown_fields
from distconvd.api.reporting import ReportAnswer, ReportName, Sender, apply_report, read_report
from distconvd.core.ledger import Ledger
from distconvd.dispatch import engines
from distconvd.edge.problems import Crash, type_of
from distconvd.errors import BadRequest, DistconvError
from distconvd.model import Heartbeat
from distconvd.model.push import (
    AckMessage,
    CompletedMessage,
    FailedMessage,
    FromEngine,
    HeartbeatMessage,
    MessageId,
    Problem,
    ProgressMessage,
    ReleasedMessage,
    ReportMessage,
)

log = logging.getLogger("distconvd.push")

REPORT_NAMES: dict[type[ReportMessage], ReportName] = {
    CompletedMessage: "complete",
    FailedMessage: "fail",
    ReleasedMessage: "release",
    ProgressMessage: "progress",
}
REASON_CHARS = 80
_decoder: msgspec.json.Decoder[FromEngine] = msgspec.json.Decoder(FromEngine)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Unreadable(Exception):
    """The text is not a message that could be answered: it has no readable `id`."""


class _Envelope(msgspec.Struct):
    """The part of a message that must be readable for an ack to be possible."""

    id: MessageId
    type: str


class Inbox:
    """The messages of one engine.

    Args:
        ledger: runs the commands.
        engine_id: the sender; a body that names another engine is rejected.
        has_own_key: whether the key that opened the websocket is for this engine alone.
    """

    def __init__(self, ledger: Ledger, engine_id: str, *, has_own_key: bool = False) -> None:
        self._ledger = ledger
        self.engine_id = engine_id
        self.has_own_key = has_own_key
        """Whether the connection's key is for this engine alone."""
        self._sender = Sender(engine_id, has_own_key, self._check_sender)

    async def answer(self, text: str) -> AckMessage:
        """Execute a message; return its ack once all that it reports is durable.

        Raises `Unreadable`.
        """
        message = _read(text)
        if isinstance(message, AckMessage):
            return message
        try:
            body = await self._handle(message)
        except DistconvError as error:
            return _rejection(message.id, error)
        except Exception:
            log.exception(
                "a %s failed", type(message).__name__, extra={"engine_id": self.engine_id}
            )
            return _rejection(message.id, Crash(f"websocket of {self.engine_id}"))
        return AckMessage(message.id, msgspec.Raw(body))

    async def _handle(self, message: FromEngine) -> bytes:
        body = bytes(message.body)
        if isinstance(message, HeartbeatMessage):
            return await self._heartbeat(body)
        return await self._report(REPORT_NAMES[type(message)], message.job_id, body)

    async def _heartbeat(self, body: bytes) -> bytes:
        beat = decode(body, Heartbeat)
        self._check_sender(beat.engine_id)
        extra = unknown_fields(body, Heartbeat)
        return msgspec.json.encode(await self._ledger.execute(engines.heartbeat, beat, extra))

    async def _report(self, name: ReportName, job_id: str, body: bytes) -> bytes:
        report = read_report(name, body, self._sender)
        reply = await apply_report(self._ledger, name, job_id, report, self._sender)
        if isinstance(reply, ReportAnswer):
            ids = {"job_id": job_id, "engine_id": self.engine_id, "attempt": report.attempt}
            log.info("by websocket: %s", reply.message, extra=ids)
        return msgspec.json.encode(reply)

    def _check_sender(self, engine_id: str) -> None:
        if engine_id != self.engine_id:
            raise BadRequest(
                f"'engine_id' is {engine_id!r}, but this is the websocket of {self.engine_id!r}.",
                field="engine_id",
            )


def encoded(message: Any) -> str:
    """Return a message as it goes on the wire."""
    return msgspec.json.encode(message).decode()


def _read(text: str) -> FromEngine | AckMessage:
    """Return a message, or the ack that rejects it."""
    try:
        return _decoder.decode(text)
    except _UNREADABLE as error:
        fault = str(error)
    try:
        envelope = msgspec.json.decode(text, type=_Envelope)
    except _UNREADABLE as error:
        raise Unreadable(f"this is not a message: {error}"[:REASON_CHARS]) from error
    return _rejection(
        envelope.id, BadRequest(f"The message is invalid or of an unknown type: {fault[:200]}.")
    )


def _rejection(number: int, error: DistconvError) -> AckMessage:
    problem = Problem(type_of(type(error)), error.title, error.status, error.detail, error.field)
    return AckMessage(number, problem=problem)
