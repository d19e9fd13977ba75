"""Refusing, before any byte is read, what this engine cannot do: codec and scheme."""

from urllib.parse import urlsplit

from distconv_engine.attempts.context import EngineContext
from distconv_engine.encode.encoders import Encoder
from distconv_engine.failures import EngineFault, InputFault
from distconvd.model import CODECS, Job, canonical_codec


def preflight(context: EngineContext, job: Job) -> tuple[Encoder, ...]:
    """Refuse what this engine cannot do at all; returns the encoders to try, best first."""
    codec = canonical_codec(job.target_codec)
    encoders = context.capabilities.encoders(codec)
    if not encoders:
        if codec not in CODECS:
            raise InputFault(f"'{job.target_codec}' is not a codec that DistConv engines make.")
        raise EngineFault(f"This engine has no working encoder for {codec}.")
    scheme = urlsplit(job.source_url).scheme
    if scheme not in ("http", "https", "file"):
        raise InputFault(f"The source's scheme '{scheme}' is not http, https or file.")
    return encoders
