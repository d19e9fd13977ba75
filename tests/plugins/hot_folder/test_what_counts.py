"""Of all files in a hot folder only videos are submitted: never a link, a part or a result."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.plugins.hot_folder.kit import Site

from distconv_plugins.hot_folder.names import is_video, report_name
from distconv_plugins.hot_folder.orders import OrderBook

# ------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize(
    "name", ["a.mp4", "A.MOV", "with space.mkv", "new\nline.ts", "漢字🎬.webm", "a.b.c.mxf"]
)
def test_a_video_is_recognized_by_its_name(name: str) -> None:
    assert is_video(name)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "mp4", ".hidden.mp4", "._a.mov", "~$a.mov", "a.mp4.part", "a.part.mp4"),
        *("a.tmp.mov", "a.mp4~", "a~.mp4", ".a.mov.Ab3dE9", "a.mov.report.json", "a.crdownload"),
        *("distconv.toml", ".1_0-1.distconv-part"),
    ],
)
def test_hidden_temporary_and_other_files_are_not_videos(name: str) -> None:
    assert not is_video(name)


@pytest.mark.parametrize("name", ["a.mov", "n" * 255, "漢" * 85, "é" * 127 + "x"])
def test_the_name_of_a_report_fits_the_file_system(name: str) -> None:
    for tag in ("", "abcdef01"):
        cut = report_name(name, tag)
        assert len(os.fsencode(cut)) <= 255
        assert cut.endswith(".report.json")
        cut.encode()  # raises for half a character


async def test_links_devices_and_folders_with_a_videos_name_are_left_alone(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "secret.mov").write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mov").write_text("b")
    site.video("h264/good.mov")
    (site.watch / "h264/link.mov").symlink_to(tmp_path / "secret.mov")
    (site.watch / "h264/folder").symlink_to(tmp_path / "elsewhere")
    (site.watch / "av1").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(site.watch / "h264/pipe.mov")
    (site.watch / "h264/dir.mov").mkdir()
    await site.live()
    assert site.daemon.sources == ["h264/good.mov"]


async def test_a_video_that_a_link_replaces_before_it_is_read_is_not_followed(
    site: Site, tmp_path: Path
) -> None:
    place = site.video("h264/a.mov")
    secret = tmp_path / "secret.mov"
    secret.write_text("video")
    os.utime(secret, ns=(0, place.stat().st_mtime_ns))
    service = site.service()
    order_book_order = OrderBook.order

    async with service.opened():
        await site.scan(service, times=1)
        scan = await service._do(OrderBook.scan, 100.0)
        place.unlink()
        place.symlink_to(secret)
        pending_orders, troubles = await service._do(order_book_order, scan.videos)
        assert pending_orders == []
        assert len(troubles) == 1
        place.parent.rename(site.watch / "moved")
        (site.watch / "h264").symlink_to(tmp_path)
        assert (await service._do(order_book_order, scan.videos))[0] == []


async def test_any_name_of_a_video_is_accepted_and_logged_as_printable_ascii(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["new\nline.mov", "\x1b[31m.mov", os.fsdecode(b"\xff\xfe.mov"), "n" * 251 + ".mov"]
    for name in names:
        site.video(f"h264/{name}", name.encode(errors="replace").decode())
    await site.live(ends=True)
    urls = [urlsplit(job.source_url).path for job in site.daemon.all]
    assert all(url.isascii() and url.isprintable() and " " not in url for url in urls)
    assert len(list((site.watch / "done/h264").iterdir())) == len(urls) == 4
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


async def test_videos_outside_of_a_codecs_folder_are_left_alone(site: Site) -> None:
    site.video("a.mov")
    site.video(".trash/a.mov", "b")
    site.video("@eaDir/a.mov", "c")
    await site.live()
    assert site.daemon.all == []


async def test_a_folder_not_named_after_a_codec_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.video("my videos/a.mov")
    await site.live()
    assert site.daemon.all == []
    assert "the folder my videos is not served" in caplog.text


# ------------------------------------------------------------------- results are never taken for videos


async def test_results_inside_the_tree_are_never_taken_for_videos(site: Site) -> None:
    site.settings("h264", 'output = "ready"')
    site.video("h264/a.mov", "a")
    site.video("av1/b.mov", "b")
    await site.live(ends=True)
    for result in ("h264/ready/a.mp4", "done/av1/b.mp4", "done/h264/c.mp4"):
        site.video(result, f"result {result}")
    for _ in range(3):
        await site.live(ends=True)
    assert sorted(site.daemon.sources) == ["av1/b.mov", "h264/a.mov"]


async def test_results_of_earlier_settings_are_never_taken_for_videos(site: Site) -> None:
    toml = site.settings("h264", 'output = "ready"')
    site.video("h264/a.mov", "a")
    await site.live(ends=True)
    site.video("h264/ready/a.mp4", "result")
    site.settings("h264", 'output = "ready-2"')
    await site.live()
    toml.unlink()
    await site.live()
    assert site.daemon.sources == ["h264/a.mov"]


async def test_results_reached_through_a_link_are_never_taken_for_videos(
    site: Site, tmp_path: Path
) -> None:
    (site.watch / "h264" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(site.watch / "h264" / "real")
    site.settings("h264", f'output = "{tmp_path}/link"')
    site.video("h264/real/a.mov", "result")
    await site.live()
    assert site.daemon.all == []


async def test_two_videos_of_one_name_into_one_folder_get_a_report_each(
    site: Site, tmp_path: Path
) -> None:
    for folder in ("h264/x", "h264/y"):
        site.settings(folder, f'output = "{tmp_path}/out"')
        site.video(f"{folder}/a.mov", folder)
    await site.live(ends=True)
    await site.live(ends=True)
    reports = [json.loads(p.read_bytes()) for p in (tmp_path / "out").glob("*.report.json")]
    assert sorted(report["job_id"] for report in reports) == ["1753_1", "1753_2"]
