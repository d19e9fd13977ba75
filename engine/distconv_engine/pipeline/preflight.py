"""Refuse a job whose codec or URL scheme this engine cannot handle, before reading anything."""

from urllib.parse import urlsplit

from distconv_engine.attempts.context import Attempt
from distconv_engine.failures import EngineFault, InputFault
from distconv_engine.host.capabilities import VerifiedEncoder
from distconvd.model import CODECS, canonical_codec


def preflight(attempt: Attempt) -> tuple[VerifiedEncoder, ...]:
    """Return the encoders to try, best first; raises a `JobFailure` if the job cannot work here."""
    job = attempt.job
    codec = canonical_codec(job.target_codec)
    encoders = attempt.context.capabilities.encoders(codec)
    if not encoders:
        if codec not in CODECS:
            known = ", ".join(CODECS)
            raise InputFault(f"Unknown codec '{job.target_codec}'. Expected one of: {known}.")
        raise EngineFault(f"This engine has no working encoder for {codec}.")
    scheme = urlsplit(job.source_url).scheme
    if scheme not in ("http", "https", "file"):
        raise InputFault(f"The source URL's scheme must be http, https or file, not '{scheme}'.")
    return encoders
