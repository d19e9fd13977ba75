"""Decode an HTTP reply into a typed value, or into the error to show to a person."""

import re
from typing import TypeVar

import httpx
import msgspec

from distconv_client.certificates import plain_reason
from distconv_client.errors import (
    REFUSALS,
    ClientError,
    DaemonUnreachable,
    Refused,
    UnexpectedReply,
)

T = TypeVar("T")

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""OpenSSL's reasons for a reply that is not TLS; they depend on its version."""
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""OpenSSL's reason for a certificate that is not valid."""
_CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError)
"""The errors when a TLS port gets a request in plain text."""

KEY_HINT = "Give the key with --api-key, DISTCONV_API_KEY or api_key in the configuration file."
_WRONG_KEY_HINT = (
    "The daemon does not accept this key: check --api-key, DISTCONV_API_KEY, or api_key in the "
    "configuration file."
)
_TRUST_HINT = (
    "If your own authority issued it, name its file: SSL_CERT_FILE=ca.pem. Otherwise use the host "
    "name of the certificate, or run `distconv doctor`."
)
HINTS: dict[int, str] = {
    401: KEY_HINT,
    403: "The role of this key does not allow that; use another key.",
    413: "Use fewer or shorter labels and options.",
    429: "Try again in a moment.",
    503: "The daemon cannot accept it now; try again in a moment.",
}


class Problem(msgspec.Struct, frozen=True):
    """The parts of an RFC 9457 problem document that are shown to a person."""

    title: str = ""
    detail: str = ""
    field: str | None = None


def decoded(response: httpx.Response, reply_type: type[T]) -> T:
    """Return the reply's body as `reply_type`; raises `UnexpectedReply` if it is something else."""
    try:
        return msgspec.json.decode(response.content, type=reply_type)
    except msgspec.DecodeError as error:
        raise not_ours(response, str(error)) from error


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the error for a reply that is not a success."""
    if response.is_success:
        return
    if response.status_code < httpx.codes.BAD_REQUEST:
        raise not_ours(response, f"HTTP {response.status_code}")
    raise refusal(response)


def refusal(response: httpx.Response) -> ClientError:
    """Return the error for a 4xx or 5xx reply, in the daemon's own words if there are any."""
    status = response.status_code
    problem = problem_of(response)
    if problem is None:
        if status == 400 and _asks_for_tls(response):
            return DaemonUnreachable(
                f"{response.request.url} accepts TLS only.",
                hint="Write https:// instead of http://.",
            )
        if response.headers.get("Content-Type", "").startswith("text/html"):
            return not_ours(response, f"HTTP {status} with a web page")
        problem = Problem(title=response.reason_phrase)
    kind = REFUSALS.get(status, Refused)
    hint = HINTS.get(status, "")
    if status == 401 and "X-API-Key" in response.request.headers:
        hint = _WRONG_KEY_HINT
    return kind(status, problem.title, problem.detail, field=problem.field, hint=hint)


def _asks_for_tls(response: httpx.Response) -> bool:
    """Whether a TLS port rejected plain text with a page, as nginx, Apache and Go do."""
    said = response.content.lower()
    return response.request.url.scheme == "http" and (b"https" in said or b"ssl-enabled" in said)


def problem_of(response: httpx.Response) -> Problem | None:
    """Return the problem document of a reply, or None if the body is something else."""
    try:
        return msgspec.json.decode(response.content, type=Problem)
    except msgspec.DecodeError:
        return None


def not_ours(response: httpx.Response, reason: str) -> UnexpectedReply:
    """Return the error for a reply that no daemon of this version sends."""
    return UnexpectedReply(
        f"{response.request.method} {response.request.url} did not answer as distconvd does: {reason}",
        hint="Is this the address of a DistConv daemon of the same version as this client?",
    )


def unreachable(server: str, error: httpx.TransportError) -> DaemonUnreachable:
    """Return the error for a request without a reply."""
    reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    reason = re.sub(r"\[Errno -?\d+\] ", "", reason)
    if _UNTRUSTED in reason:
        reason_text = plain_reason(reason.partition("certificate verify failed: ")[2] or reason)
        return DaemonUnreachable(
            f"The certificate of the daemon at {server} is not valid: {reason_text}.",
            hint=_TRUST_HINT,
        )
    return DaemonUnreachable(
        f"Cannot reach the daemon at {server}: {reason or type(error).__name__}.",
        hint=_entry_hint(server, error, reason),
    )


def _entry_hint(server: str, error: httpx.TransportError, reason: str) -> str:
    """Return what to do about a daemon that does not answer."""
    if server.startswith("https:") and any(sign in reason for sign in _NO_TLS):
        return "The server does not speak TLS: write http:// instead of https://."
    if server.startswith("http:") and isinstance(error, _CUT_OFF):
        return (
            "If the daemon has a certificate, write https:// instead of http://; else see its log."
        )
    return "Is distconvd running? Start it with `distconvd`, or give its address with --server URL."
