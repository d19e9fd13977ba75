"""Handle an engine's websocket messages: each is one command, answered after its commit.

The bodies, their checks and the commands are those of HTTP. A message without a readable `id` cannot
be answered and raises `Unreadable`; any other error is reported in its ack.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from distconvd.api.assigned_engine import require_assigned_engine
from distconvd.api.decode import decode
from distconvd.api.known_fields import unknown_fields
from distconvd.core.ledger import Ledger
from distconvd.dispatch import engines, reports
from distconvd.dispatch.transaction import Transaction
from distconvd.edge.problems import Crash, type_of
from distconvd.errors import BadRequest, DistconvError
from distconvd.model import (
    CompleteReport,
    FailReport,
    Heartbeat,
    ProgressReport,
    ReleaseReport,
)
from distconvd.model.push import (
    AckMessage,
    CompletedMessage,
    FailedMessage,
    FromEngine,
    HeartbeatMessage,
    MessageId,
    Problem,
    ProgressMessage,
    ReportMessage,
)

log = logging.getLogger("distconvd.push")

R = TypeVar("R", CompleteReport, FailReport, ReleaseReport, ProgressReport)

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
    """

    def __init__(self, ledger: Ledger, engine_id: str) -> None:
        self._ledger = ledger
        self._engine_id = engine_id

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
                "a %s failed", type(message).__name__, extra={"engine_id": self._engine_id}
            )
            return _rejection(message.id, Crash(f"websocket of {self._engine_id}"))
        return AckMessage(message.id, msgspec.Raw(body))

    async def _handle(self, message: FromEngine) -> bytes:
        body = bytes(message.body)
        if isinstance(message, HeartbeatMessage):
            return await self._heartbeat(body)
        if isinstance(message, ProgressMessage):
            return await self._progress(message, body)
        if isinstance(message, CompletedMessage):
            return await self._report(message, body, CompleteReport, reports.complete)
        if isinstance(message, FailedMessage):
            return await self._report(message, body, FailReport, reports.fail)
        return await self._report(message, body, ReleaseReport, reports.release)

    async def _heartbeat(self, body: bytes) -> bytes:
        beat = decode(body, Heartbeat)
        self._check_sender(beat.engine_id)
        extra = unknown_fields(body, Heartbeat)
        return msgspec.json.encode(await self._ledger.execute(engines.heartbeat, beat, extra))

    async def _progress(self, message: ProgressMessage, body: bytes) -> bytes:
        report = self._signed(decode(body, ProgressReport))
        verdict = await self._ledger.execute(reports.progress, message.job_id, report)
        return msgspec.json.encode(verdict)

    async def _report(
        self,
        message: ReportMessage,
        body: bytes,
        kind: type[R],
        apply: Callable[[Transaction, str, R], str],
    ) -> bytes:
        """Apply a report and answer with the original's sentence and the job as it is now."""
        report = self._signed(decode(body, kind))

        def command(tx: Transaction) -> tuple[str, bytes]:
            if _has_no_number(report):
                require_assigned_engine(tx, message.job_id, self._engine_id)
            return apply(tx, message.job_id, report), tx.job_view(message.job_id)

        sentence, record = await self._ledger.execute(command)
        ids = {"job_id": message.job_id, "engine_id": self._engine_id, "attempt": report.attempt}
        log.info("by websocket: %s", sentence, extra=ids)
        return msgspec.json.encode({"message": sentence, "job": msgspec.Raw(record)})

    def _signed(self, report: R) -> R:
        """Return the report with its sender, which the websocket identifies even if it does not."""
        self._check_sender(report.engine_id)
        return msgspec.structs.replace(report, engine_id=self._engine_id)

    def _check_sender(self, engine_id: str | None) -> None:
        if engine_id not in (None, self._engine_id):
            raise BadRequest(
                f"'engine_id' is {engine_id!r}, but this is the websocket of {self._engine_id!r}.",
                field="engine_id",
            )


def _has_no_number(report: CompleteReport | FailReport | ReleaseReport | ProgressReport) -> bool:
    """Whether a report names no attempt, so that its sender must be checked."""
    return report.attempt is None


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
