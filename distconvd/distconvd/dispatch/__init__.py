"""Decide: commands and `now` go in; changes, events and a reply come out.

Sans-IO: it imports neither trio nor h11 and has no clock, so a test drives years in milliseconds.
A command is a function of a `Transaction`; `Dispatcher.decide` runs it and returns a `Decision`,
which the ledger makes durable before the reply is sent and the events are published, or a `Refusal`.
`Dispatcher.rollback` undoes decisions that could not be made durable.
"""

from distconvd.dispatch.decision import Decision, Event, Instant, Refusal
from distconvd.dispatch.dispatcher import Dispatcher
from distconvd.dispatch.settings import DispatchSettings

__all__ = ["Decision", "DispatchSettings", "Dispatcher", "Event", "Instant", "Refusal"]
