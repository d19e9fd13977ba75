"""One attempt from assignment to proof: preflight, fetch, probe, encode, verify, publish.

Each stage is a module of its own and knows nothing of the others; this one only passes on what a
stage found. It returns the report of a success, or raises the `JobFailure` of the stage that
failed. Cancelling it at any point leaves no process and no partial file behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trio

from distconv_engine.capabilities import Capabilities
from distconv_engine.codecs import CODECS, Encoder
from distconv_engine.command import Request
from distconv_engine.config import Config
from distconv_engine.encode import Encoded, encode
from distconv_engine.failures import EngineFault, InputFault, TransientFault
from distconv_engine.fetch import check_sha256, download, local_path
from distconv_engine.ffmpeg_tools import Tools
from distconv_engine.files import safe_name
from distconv_engine.gauges import free_bytes
from distconv_engine.journal import HeldAttempt, Journal
from distconv_engine.logs import Log
from distconv_engine.plan import Plan, make_plan
from distconv_engine.progress import EncodeProgress
from distconv_engine.publish import publish_file, publish_http, temporary_of
from distconv_engine.running import Controls
from distconv_engine.source_check import Source, check_source, check_unchanged
from distconv_engine.sources import file_url
from distconv_engine.targets import FileTarget, choose_target, is_media_store
from distconv_engine.tracker import Tracker
from distconv_engine.verify import Verified, verify
from distconvd.model import CompleteReport, Job, JobResult, canonical_codec

MB = 1e6
_CONTENT_TYPES = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "ts": "video/mp2t",
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all attempts of an engine share."""

    config: Config
    engine_id: str
    tools: Tools
    capabilities: Capabilities
    client: httpx.AsyncClient
    journal: Journal
    log: Log


@dataclass(slots=True)
class Attempt:
    """One attempt under way."""

    job: Job
    folder: Path
    tracker: Tracker
    controls: Controls

    @property
    def token(self) -> str:
        """Tells this attempt's temporary files from those of any other."""
        return token_of(self.job)


def token_of(job: Job) -> str:
    """Return a file name for one attempt of one job."""
    return f"{safe_name(job.job_id)}.{job.attempt}"


def held_of(attempt: Attempt, *partials: Path) -> HeldAttempt:
    """Return the journal's entry for an attempt."""
    folder, names = str(attempt.folder), [str(path) for path in partials]
    return HeldAttempt(attempt.job.job_id, attempt.job.attempt, folder, names)


async def run_attempt(shop: Workshop, attempt: Attempt) -> CompleteReport:
    """Do the work of one attempt; its folder exists already and is removed by the caller."""
    start = trio.current_time()
    job, tracker = attempt.job, attempt.tracker
    tracker.phase("preflight")
    encoders = preflight(shop, job)
    path = await _fetch(shop, attempt)
    tracker.phase("probe")
    source = await check_source(shop.tools, path, attempt.controls)
    plan = make_plan(job, source.probe)
    check_decodes(shop.capabilities, plan, shop.tools.ffmpeg)
    tracker.phase("encode")
    work = await _encode_with(shop, attempt, source, plan, encoders)
    tracker.phase("verify")
    proved = await verify(
        work.request, source, work.encoded, work.path, attempt.controls, tracker.part
    )
    check_unchanged(source)
    tracker.phase("publish")
    url = await _publish(shop, attempt, source, work, proved)
    tracker.phase("report")
    result = _result(shop, source, work, proved, trio.current_time() - start)
    return CompleteReport(url, job.attempt, shop.engine_id, result)


# ------------------------------------------------------------------------------- before the encode


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
    check_room(shop.config, job.job_size * MB, fetched=scheme != "file")
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


def check_decodes(capabilities: Capabilities, plan: Plan, ffmpeg: str) -> None:
    """Raise `EngineFault` for a source that this ffmpeg has no decoder for; another may have."""
    video = plan.video.stream.codec if plan.video else None
    if video in CODECS and capabilities.readers.get(video) != ffmpeg:
        raise EngineFault(f"This engine's ffmpeg cannot decode {video} video.")


async def _fetch(shop: Workshop, attempt: Attempt) -> Path:
    job, config = attempt.job, shop.config
    if urlsplit(job.source_url).scheme == "file":
        path = local_path(job.source_url, config.source_root)
    else:
        attempt.tracker.phase("fetch")
        path = attempt.folder / "source"
        await download(
            shop.client,
            job.source_url,
            path,
            tries=config.fetch_tries,
            key=config.api_key if is_media_store(job.source_url, config.server) else None,
            on_total=lambda total: check_room(config, total, fetched=True),
            on_progress=attempt.tracker.part,
        )
    if job.source_sha256:
        await check_sha256(path, job.source_sha256)
    return path


# ------------------------------------------------------------------------------------- the encode


@dataclass(frozen=True, slots=True)
class _Work:
    """An encode that is done, and how."""

    request: Request
    encoded: Encoded
    path: Path
    fallbacks: tuple[str, ...]


async def _encode_with(
    shop: Workshop, attempt: Attempt, source: Source, plan: Plan, encoders: tuple[Encoder, ...]
) -> _Work:
    """Encode with the first encoder that works; a hardware one may give way to software."""
    path = attempt.folder / f"output{plan.container.suffix}"
    fallbacks: list[str] = []
    for encoder in encoders:
        request = Request(
            shop.tools,
            source.url,
            plan,
            attempt.job.options,
            encoder,
            file_url(path),
            reader=shop.capabilities.readers.get(plan.codec),
        )
        try:
            encoded = await encode(
                request,
                attempt.controls,
                _teller(attempt.tracker, source.duration_s),
                cwd=attempt.folder,
                duration_s=source.duration_s,
            )
        except EngineFault as fault:
            if not (encoder.hardware and shop.config.software_fallback):
                raise
            shop.log.warning("hardware encoder failed", encoder=encoder.name, reason=fault.message)
            fallbacks.append(f"fallback-from-{encoder.name}")
            continue
        return _Work(request, encoded, path, tuple(fallbacks))
    raise EngineFault("Every encoder of this engine failed: " + ", ".join(fallbacks))


def _teller(tracker: Tracker, duration_s: float) -> Callable[[EncodeProgress, float], None]:
    def tell(progress: EncodeProgress, part: float) -> None:
        tracker.encoding(progress, part, duration_s)

    return tell


# -------------------------------------------------------------------------------- after the encode


async def _publish(
    shop: Workshop, attempt: Attempt, source: Source, work: _Work, proved: Verified
) -> str:
    config, container = shop.config, work.request.plan.container
    target = choose_target(
        attempt.job,
        container.suffix,
        output=config.output,
        server=config.server,
        roots=config.source_root,
    )
    if isinstance(target, FileTarget):
        temporary = temporary_of(target, attempt.token)
        await trio.to_thread.run_sync(shop.journal.hold, held_of(attempt, temporary))
        return await publish_file(work.path, proved.sha256, target, temporary, source.path)
    return await publish_http(
        shop.client,
        work.path,
        proved.sha256,
        target,
        key=config.api_key,
        content_type=_CONTENT_TYPES[container.name],
        on_progress=attempt.tracker.part,
    )


def _result(
    shop: Workshop, source: Source, work: _Work, proved: Verified, wall_s: float
) -> JobResult:
    plan = work.request.plan
    return JobResult(
        size_bytes=proved.size_bytes,
        sha256=proved.sha256,
        duration_s=round(proved.duration_s, 3),
        video_frames=proved.video_frames,
        video_codec=plan.codec if plan.video else None,
        audio_codec=proved.audio_codec,
        width=proved.width,
        height=proved.height,
        source_size_bytes=source.state.size_bytes,
        source_duration_s=round(source.duration_s, 3),
        engine_id=shop.engine_id,
        ffmpeg_version=shop.tools.version,
        encoder=work.request.encoder.name if plan.video else None,
        wall_s=round(wall_s, 3),
        kept=plan.labels(),
        dropped=list(plan.dropped),
        checks=[*source.checks, *proved.checks, "source-unchanged", *work.fallbacks],
    )
