"""Run large jobs with a remote source: same checks, and nothing stored on the engine."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.clips import AAC, Clips
from tests.engine.conftest import Run, probe_streams
from tests.engine.daemon import FakeDaemon, Served

from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.failures import InputFault, TransientFault, VerificationFault
from distconv_engine.ffmpeg.tools import Tools

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}
LARGE = {"job_size": 100.0, "options": FAST}


def serve(daemon: FakeDaemon, clip: Path, **how: Any) -> str:
    daemon.files[f"/{clip.name}"] = Served(clip.read_bytes(), **how)
    return f"{daemon.url}/{clip.name}"


@pytest.mark.parametrize(
    "kind,codec,options,streams",
    [
        ("mp4-moov-last", "h264", FAST, ["h264,video", "aac,audio"]),
        ("mp4-moov-first", "hevc", FAST, ["hevc,video", "aac,audio"]),
        ("mp4-fragmented", "h264", {**FAST, "container": "mkv"}, ["h264,video", "aac,audio"]),
        ("mkv", "h264", {**FAST, "container": "mov"}, ["h264,video", "aac,audio"]),
        ("webm", "vp9", {"preset": "8"}, ["vp9,video", "opus,audio"]),
        ("ts", "h264", {**FAST, "container": "ts"}, ["h264,video", "aac,audio"]),
        ("ts", "h264", FAST, ["h264,video", "aac,audio"]),
        ("ts", "h264", {**FAST, "container": "mov"}, ["h264,video", "aac,audio"]),
        ("flv", "vp8", {}, ["vp8,video", "opus,audio"]),
    ],
)
async def test_a_large_job_is_sent_while_it_is_encoded_and_read_back(
    kind: str,
    codec: str,
    options: dict[str, Any],
    streams: list[str],
    run_job: Run,
    clips: Clips,
    daemon: FakeDaemon,
    tools: Tools,
    tmp_path: Path,
) -> None:
    url = serve(daemon, clips.container(kind))
    report = await run_job(
        url, codec, job_size=100.0, options=options, place=None, server=daemon.url
    )
    [(path, headers)] = daemon.puts
    found = daemon.media[path]
    got = tmp_path / "got"
    got.write_bytes(found)
    assert report.output_url == daemon.url + path
    assert (
        list(dict.fromkeys(probe_streams(tools, got))) == streams
    )  # ffprobe lists those of a TS twice
    assert (len(found), hashlib.sha256(found).hexdigest()) == (
        report.result.size_bytes,
        report.result.sha256,
    )
    assert {"target-read-back", "frames", "decodes"} <= set(report.result.checks)
    form = "fragmented" if path.endswith((".mp4", ".mov")) else "unindexed"
    assert report.result.notes == ["streamed", form]
    assert headers["transfer-encoding"] == "chunked"


async def test_a_large_job_into_a_directory_is_written_there_and_nowhere_else(
    run_job: Run, clips: Clips, daemon: FakeDaemon, tmp_path: Path
) -> None:
    url = serve(daemon, clips.plain())
    report = await run_job(url, **LARGE)
    [published] = (tmp_path / "out").iterdir()
    assert report.output_url == published.as_uri()
    assert hashlib.sha256(published.read_bytes()).hexdigest() == report.result.sha256
    assert report.result.notes == ["streamed"]
    assert not any(p.is_file() for p in (tmp_path / "work" / "attempts").rglob("*"))


@pytest.mark.slow
async def test_over_100_mb_leave_less_than_64_mb_on_the_engines_disk(
    run_job: Run, clips: Clips, daemon: FakeDaemon, tmp_path: Path
) -> None:
    noise = "color=gray:s=1280x720:r=25:d=2.6,noise=alls=60:allf=t"
    arguments = ("-f", "lavfi", "-i", noise, "-c:v", "libx264", "-preset", "ultrafast", "-qp", "4")
    clip = clips.make("noise-100-mb.mp4", *arguments, "-pix_fmt", "yuv420p")
    assert clip.stat().st_size > 100_000_000
    url = serve(daemon, clip)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            files = [p for p in (tmp_path / "work").rglob("*") if p.is_file()]
            most = max(most, sum(p.stat().st_size for p in files))
            await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        options = {**FAST, "crf": 9}
        report = await run_job(
            url, job_size=clip.stat().st_size / 1e6, options=options, server=daemon.url, place=None
        )
        nursery.cancel_scope.cancel()
    assert report.result.source_size_bytes == clip.stat().st_size
    assert report.result.size_bytes > 64_000_000
    assert daemon.chunks > 20
    assert most < 64_000_000


@pytest.mark.parametrize("at_request", [1, 3, 4])
async def test_a_source_that_changes_between_requests_is_an_input_failure(
    at_request: int, run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    url = serve(daemon, clips.plain(), etags=['"v1"'] * at_request, etag='"v2"')
    with pytest.raises(InputFault, match="changed while it was read"):
        await run_job(url, **LARGE, server=daemon.url, place=None)
    assert not daemon.media


async def test_a_source_that_its_server_never_sends_whole_is_an_input_failure(
    run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    whole = clips.container("mp4-moov-first")
    url = serve(daemon, whole)
    size = len(daemon.files[f"/{whole.name}"].content)
    daemon.files[f"/{whole.name}"].cut_at = size * 6 // 10
    with pytest.raises(InputFault, match="breaks off"):
        await run_job(url, **LARGE, server=daemon.url, place=None, fetch_tries=2)
    assert not daemon.media


@pytest.mark.parametrize("part", [25, 60, 95])
async def test_a_cut_source_is_detected_without_being_stored(
    part: int, run_job: Run, clips: Clips, daemon: FakeDaemon, tmp_path: Path
) -> None:
    content = clips.container("mp4-moov-first").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * part // 100])
    with pytest.raises(InputFault):
        await run_job(serve(daemon, cut), **LARGE, server=daemon.url, place=None)
    assert not daemon.media


async def test_a_broken_connection_is_resumed_where_it_broke(
    run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    url = serve(daemon, clips.container("mkv"), break_after=[1, 900, 5000, 700])
    report = await run_job(url, **LARGE, server=daemon.url, place=None)
    assert "streamed" in report.result.notes


@pytest.mark.parametrize("how", [{"ranges": False}, {"etag": None}])
async def test_a_source_served_without_ranges_or_etag_is_fetched(
    how: dict[str, Any], run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    report = await run_job(serve(daemon, clips.plain(), **how), **LARGE)
    assert report.result.notes is None


@pytest.mark.parametrize(
    "name,container",
    [
        ("chapters", "mp4"),
        ("cover-art", "mp4"),
        ("edit-list", "mp4"),
        ("b-frames-open-gop-ts", "mkv"),
    ],
)
async def test_a_source_whose_output_cannot_be_uploaded_while_encoding_is_fetched(
    name: str, container: str, run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    url = serve(daemon, clips.odd(name))
    how = {"job_size": 100.0, "options": {**FAST, "container": container}}
    report = await run_job(url, **how, server=daemon.url, place=None)
    assert report.result.notes is None
    assert len(daemon.media) == 1


async def test_a_given_digest_is_checked_against_a_streamed_source(
    run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    url = serve(daemon, clips.plain())
    with pytest.raises(InputFault, match="SHA-256"):
        await run_job(url, **LARGE, source_sha256="0" * 64)


async def test_a_server_that_stores_other_bytes_is_detected(
    run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    daemon.corrupt_put = lambda content: content[:-1] + b"?"
    with pytest.raises(VerificationFault, match="other bytes"):
        await run_job(serve(daemon, clips.plain()), **LARGE, server=daemon.url, place=None)


async def test_an_upload_that_breaks_is_transient_and_leaves_nothing(
    run_job: Run, clips: Clips, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.break_put_after = 1
    with pytest.raises(TransientFault, match="cannot be uploaded"):
        await run_job(serve(daemon, clips.plain()), **LARGE, server=daemon.url, place=None)
    assert not daemon.media
    assert not any((tmp_path / "work" / "attempts").rglob("output*"))


@pytest.mark.parametrize(
    "how, fetched",
    [
        ({"job_size": 0.0, "options": FAST}, True),
        (LARGE, False),
        ({**LARGE, "place": None}, False),
    ],
    ids=["stored", "to a directory", "uploaded while encoding"],
)
async def test_stored_and_streamed_jobs_go_through_the_same_phases(
    how: dict[str, Any], fetched: bool, run_job: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    entered: list[str] = []

    class Recorder(Tracker):
        def phase(self, name: str) -> None:
            entered.append(name)
            super().phase(name)

    url = serve(daemon, clips.plain())
    await run_job(url, **how, server=daemon.url, tracker=Recorder())
    fetch = ["fetch"] if fetched else []
    assert entered == ["preflight", *fetch, "probe", "encode", "verify", "publish", "report"]


async def test_a_small_job_is_fetched(run_job: Run, clips: Clips, daemon: FakeDaemon) -> None:
    report = await run_job(serve(daemon, clips.plain()), job_size=99.9, options=FAST)
    assert report.result.notes is None


async def test_zeroed_blocks_are_detected_in_a_streamed_source(
    run_job: Run, clips: Clips, daemon: FakeDaemon, tmp_path: Path
) -> None:
    arguments = (
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=640x360:r=25:d=4",
        "-c:v",
        "libx264",
        *AAC.split(),
    )
    content = bytearray(clips.make("holes.mkv", *arguments).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = bytes(8192)
    holed = tmp_path / "holed.mkv"
    holed.write_bytes(content)
    with pytest.raises(InputFault):
        await run_job(serve(daemon, holed), **LARGE, server=daemon.url, place=None)
    assert not daemon.media
