"""What engines say over a websocket: each message is one command, answered after its commit.

The bodies, their checks and the commands are those of HTTP. A message that cannot be answered, as
it has no readable `id`, raises `Unreadable`; any other fault is told in its ack.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from distconvd.api.decode import decode
from distconvd.api.holders import require_assigned_engine
from distconvd.api.validate import (
    check_complete,
    check_fail,
    check_heartbeat,
    check_progress,
    check_release,
    unknown_fields,
)
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
    """Not a message: there is no `id` to answer to."""


class _Envelope(msgspec.Struct):
    """The part of a message that must be readable, so that it can be answered at all."""

    id: MessageId
    type: str


class Inbox:
    """The messages of one engine.

    Args:
        ledger: runs the commands.
        engine_id: who sends; a body that names another engine is refused.
    """

    def __init__(self, ledger: Ledger, engine_id: str) -> None:
        self._ledger = ledger
        self._engine_id = engine_id

    async def answer(self, text: str) -> AckMessage:
        """Do what a message says; return its ack once all that it tells is durable.

        Raises `Unreadable`.
        """
        message = _read(text)
        if isinstance(message, AckMessage):
            return message
        try:
            body = await self._handle(message)
        except DistconvError as error:
            return _refusal(message.id, error)
        except Exception:
            log.exception(
                "a message %s failed", type(message).__name__, extra={"engine_id": self._engine_id}
            )
            return _refusal(message.id, Crash(f"websocket of {self._engine_id}"))
        return AckMessage(message.id, msgspec.Raw(body))

    async def _handle(self, message: FromEngine) -> bytes:
        body = bytes(message.body)
        if isinstance(message, HeartbeatMessage):
            return await self._heartbeat(body)
        if isinstance(message, ProgressMessage):
            return await self._progress(message, body)
        if isinstance(message, CompletedMessage):
            return await self._report(
                message, body, CompleteReport, check_complete, reports.complete
            )
        if isinstance(message, FailedMessage):
            return await self._report(message, body, FailReport, check_fail, reports.fail)
        return await self._report(message, body, ReleaseReport, check_release, reports.release)

    async def _heartbeat(self, body: bytes) -> bytes:
        beat = decode(body, Heartbeat)
        check_heartbeat(beat)
        self._check_sender(beat.engine_id)
        extra = unknown_fields(body, Heartbeat)
        return msgspec.json.encode(await self._ledger.execute(engines.heartbeat, beat, extra))

    async def _progress(self, message: ProgressMessage, body: bytes) -> bytes:
        report = self._signed(decode(body, ProgressReport))
        check_progress(report)
        verdict = await self._ledger.execute(reports.progress, message.job_id, report)
        return msgspec.json.encode(verdict)

    async def _report(
        self,
        message: ReportMessage,
        body: bytes,
        kind: type[R],
        check: Callable[[R], None],
        take: Callable[[Transaction, str, R], str],
    ) -> bytes:
        """Take a report and answer the original's sentence with the job as it now stands."""
        report = self._signed(decode(body, kind))
        check(report)

        def command(tx: Transaction) -> tuple[str, bytes]:
            if _has_no_number(report):
                require_assigned_engine(tx, message.job_id, self._engine_id)
            return take(tx, message.job_id, report), tx.job_view(message.job_id)

        sentence, record = await self._ledger.execute(command)
        ids = {"job_id": message.job_id, "engine_id": self._engine_id, "attempt": report.attempt}
        log.info("by websocket: %s", sentence, extra=ids)
        return msgspec.json.encode({"message": sentence, "job": msgspec.Raw(record)})

    def _signed(self, report: R) -> R:
        """Return the report with its sender, who is known here also where it does not say so."""
        self._check_sender(report.engine_id)
        return msgspec.structs.replace(report, engine_id=self._engine_id)

    def _check_sender(self, engine_id: str | None) -> None:
        if engine_id not in (None, self._engine_id):
            raise BadRequest(
                f"'engine_id' is {engine_id}, but this is the websocket of {self._engine_id}.",
                field="engine_id",
            )


def _has_no_number(report: CompleteReport | FailReport | ReleaseReport | ProgressReport) -> bool:
    """Whether a report does not say by its attempt's number whose it is."""
    return report.attempt is None


def encoded(message: Any) -> str:
    """Return a message as it goes on the wire."""
    return msgspec.json.encode(message).decode()


def _read(text: str) -> FromEngine | AckMessage:
    """Return a message, or the ack that refuses it."""
    try:
        return _decoder.decode(text)
    except _UNREADABLE as error:
        fault = str(error)
    try:
        envelope = msgspec.json.decode(text, type=_Envelope)
    except _UNREADABLE as error:
        raise Unreadable(f"not a message: {error}"[:REASON_CHARS]) from error
    return _refusal(
        envelope.id, BadRequest(f"This is no message that is known here: {fault[:200]}.")
    )


def _refusal(number: int, error: DistconvError) -> AckMessage:
    problem = Problem(type_of(type(error)), error.title, error.status, error.detail, error.field)
    return AckMessage(number, problem=problem)
