"""Refusing, before any byte is read, what this engine cannot do: codec, scheme, room on the disk."""

from urllib.parse import urlsplit

from distconv_engine.attempt import Workshop
from distconv_engine.codecs import Encoder
from distconv_engine.config import Config
from distconv_engine.failures import EngineFault, InputFault, TransientFault
from distconv_engine.gauges import free_bytes
from distconvd.model import CODECS, Job, canonical_codec

MB = 1e6


def preflight(shop: Workshop, job: Job) -> tuple[Encoder, ...]:
    """Refuse what this engine cannot do at all; returns the encoders to try, best first."""
    codec = canonical_codec(job.target_codec)
    encoders = shop.capabilities.encoders(codec)
    if not encoders:
        if codec not in CODECS:
            raise InputFault(f"'{job.target_codec}' is not a codec that DistConv engines make.")
        raise EngineFault(f"This engine has no working encoder for {codec}.")
    scheme = urlsplit(job.source_url).scheme
    if scheme not in ("http", "https", "file"):
        raise InputFault(f"The source's scheme '{scheme}' is not http, https or file.")
    return encoders


def check_room(config: Config, source_bytes: float, *, fetched: bool) -> None:
    """Raise `TransientFault` when source and output may not fit beside the reserve.

    An output is taken to be no larger than its source: the encoders' defaults make it smaller.
    """
    needed = source_bytes * (2 if fetched else 1) + config.disk_reserve_mb * MB
    free = free_bytes(config.work_dir)
    if free < needed:
        raise TransientFault(
            f"The engine's disk has {free / MB:.0f} MB free, this job needs {needed / MB:.0f} MB "
            f"(with {config.disk_reserve_mb:g} MB in reserve)."
        )
