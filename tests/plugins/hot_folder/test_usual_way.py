"""A video in a hot folder becomes a job, and the job's end a report next to its result."""

import os

import msgspec
from tests.plugins.hot_folder.kit import Site

from distconvd.dispatch import Event
from distconvd.errors import BadRequest, Unavailable
from distconvd.model import JobStatus


async def test_a_video_that_is_stable_becomes_a_job_for_its_folders_codec(site: Site) -> None:
    place = site.video("h265/shows/a b.mov", "x" * 1000)
    await site.live()
    [job] = site.daemon.all
    assert job.source_url == place.as_uri()
    assert (job.target_codec, job.job_size) == ("h265", 0.001)
    assert job.output
    assert job.output.url == (site.watch / "done/h265/shows").as_uri() + "/"


async def test_a_video_that_is_still_being_written_waits(site: Site) -> None:
    service = site.service()
    async with service.opened():
        for size in range(1, 6):
            site.video("av1/a.mp4", "x" * size)
            assert await site.scan(service, times=1) == 0
        assert await site.scan(service, times=2) == 1


async def test_an_empty_video_is_not_submitted(site: Site) -> None:
    site.video("av1/a.mp4", "")
    await site.live()
    assert site.daemon.all == []


async def test_the_report_is_next_to_the_result_and_says_how_it_went(site: Site) -> None:
    site.video("h264/sub/a.mov")
    await site.live(ends=True)
    report = site.report("done/h264/sub/a.mov")
    assert report["job_id"] == "1753_1"
    assert report["status"] == "completed"
    assert (report["source_size_bytes"], report["output_size_bytes"]) == (5, 7)
    assert str(report["output_url"]).endswith("/done/h264/sub/out.mp4")
    assert report["error"] is None
    assert report["damage"] is None


async def test_a_failure_is_reported_too(site: Site) -> None:
    site.video("h264/a.mov")
    await site.live(ends=True, status=JobStatus.FAILED_PERMANENTLY)
    report = site.report("done/h264/a.mov")
    assert (report["status"], report["error"]) == ("failed_permanently", "no such file")
    assert report["error_class"] == "input"


async def test_a_job_that_the_daemon_refuses_is_reported_and_not_tried_again(site: Site) -> None:
    site.video("h264/a.mov")
    site.daemon.down = BadRequest("Not this one.")
    await site.live()
    report = site.report("done/h264/a.mov")
    assert (report["status"], report["error"]) == ("rejected", "Not this one.")
    site.daemon.down = None
    await site.live()
    assert site.daemon.all == []


async def test_when_the_daemon_says_later_a_video_waits(site: Site) -> None:
    site.video("h264/a.mov")
    site.daemon.down = Unavailable("draining")
    service = site.service()
    async with service.opened():
        assert await site.scan(service, times=4) == 0
        site.daemon.down = None
        assert await site.scan(service, times=1) == 1


async def test_the_oldest_video_is_submitted_first(site: Site) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        os.utime(site.video(f"h264/{name}.mov"), (age, age))
    await site.live()
    assert site.daemon.sources == ["h264/c.mov", "h264/a.mov", "h264/b.mov"]


async def test_somebody_elses_job_with_our_label_is_ignored(site: Site) -> None:
    site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.scan(service)
        [job] = site.daemon.all
        theirs = msgspec.structs.replace(job, job_id="9_9", status=JobStatus.COMPLETED)
        other = msgspec.structs.replace(theirs, labels={"hot-folder": "x" * 32 + ".0"})
        for ended in (theirs, other):
            service.on_event(Event("job.completed", 0, "9_9", record=msgspec.json.encode(ended)))
        await service.publish()
    assert not (site.watch / "done").exists()
