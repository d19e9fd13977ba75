"""Re-export what a plugin may use beyond the public modules; nothing else here is stable.

The public modules are `distconvd` itself (`hookimpl`), `auth`, `disk`, `errors`, `hookspecs`,
`model`, `policy`, `store` and `testing`. A plugin that imports these and this module works with
every 1.x daemon, wherever the daemon keeps its own code; `tests/layout` checks that the bundled
plugins, the example plugin and the examples in the documents follow the same rule.
"""

from distconvd.api.validate import check_codec, check_submission
from distconvd.auth_keys.key_file import KeyRecord, digest_of, read_keys
from distconvd.dispatch.decision import Event, EventKind
from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.edge.http import BodyReader, Principal, Request, Response, Route
from distconvd.edge.problems import document_of

__all__ = [
    "Answer",
    "BodyReader",
    "Doc",
    "Event",
    "EventKind",
    "KeyRecord",
    "Parameter",
    "Principal",
    "Request",
    "Response",
    "Route",
    "check_codec",
    "check_submission",
    "digest_of",
    "document_of",
    "read_keys",
]
