"""The nearest settings apply alone, and wrong settings delay only their own folder."""

import json
import os
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.plugins.hot_folder.kit import Site

from distconv_plugins.hot_folder import tree as hot_tree
from distconv_plugins.hot_folder.orders import PROBLEM_NAME
from distconv_plugins.hot_folder.plugin import HotFolderSettings
from distconv_plugins.hot_folder.reports import write_report
from distconv_plugins.hot_folder.settings import WrongSettings, make_output_rule
from distconv_spool.disk import OsDisk


async def test_only_the_nearest_settings_apply(site: Site, tmp_path: Path) -> None:
    done = tmp_path / "results"
    site.settings(
        "h265",
        f'output = "{done}"\npriority = 2\nmax_retries = 1\nrequires = ["gpu"]\n'
        'labels = { show = "bunny" }\n[options]\ncrf = 26\nmax_height = 720\non_damage = "convert"\n',
    )
    site.settings("h265/plain", "")
    site.video("h265/one/a.mov", "a")
    site.video("h265/plain/b.mov", "bb")
    await site.live(ends=True)
    one, plain = sorted(site.daemon.all, key=lambda job: job.source_url)
    assert (one.priority, one.max_retries, one.requires) == (2, 1, ["gpu"])
    assert (one.options.crf, one.options.max_height) == (26, 720)
    assert (one.options.on_damage, plain.options.on_damage) == ("convert", "refuse")
    assert one.labels["show"] == "bunny"
    assert one.output
    assert one.output.url == (done / "one").as_uri() + "/"
    assert (done / "one" / "a.mov.report.json").is_file()
    assert (plain.priority, plain.options.crf) == (0, None)
    assert plain.output
    assert plain.output.url == (site.watch / "done/h265/plain").as_uri() + "/"


@pytest.mark.parametrize(
    "text, part",
    [
        ("?", "not valid TOML"),
        ("crf = 3", "crf"),
        ("[options]\ncrff = 3", "options.crff: this setting is not accepted"),
        ("[options]\ncrf = 99", "options.crf"),
        ("priority = 9", "priority"),
        ("max_retries = -1", "max_retries"),
        ('[options]\ncontainer = "webm"', "webm cannot hold h264"),
        ('output = ""', "name a folder"),
        ('output = "~/x"', "name a folder"),
        ('output = "."', "one of their own"),
        ('output = ".."', "one of their own"),
        ('output = "/"', "one of their own"),
        ('output = "../av1"', "codec's own folder"),
        ('output = "file:x"', "three slashes"),
        ('output = "http://h/a b"', "output.url"),
        ("output = 3", "output: Expected"),
        ("priority = 1" + "0" * 4400, "digits"),
        ("priority = 0x" + "f" * 20_000, "priority"),
        ("priority = " + "[" * 30_000, "recursion"),
        ('output = "file://["', "not a URL"),
        ('output = "file://\u2100.com/"', "not a URL"),
    ],
)
async def test_wrong_settings_are_reported_next_to_them_and_the_folder_waits_until_they_are_fixed(
    site: Site, text: str, part: str
) -> None:
    site.settings("h264", text)
    site.video("h264/a.mov", "a")
    site.video("av1/b.mov", "b")
    problem = site.watch / "h264" / PROBLEM_NAME
    await site.live()
    assert site.daemon.sources == ["av1/b.mov"]
    assert part in json.loads(problem.read_bytes())["detail"]
    site.settings("h264", 'output = "done"')
    await site.live()
    assert site.daemon.sources == ["av1/b.mov", "h264/a.mov"]
    assert not problem.exists()


async def test_names_that_are_not_utf8_harm_no_other_video(site: Site) -> None:
    """Names of a codec's folder, of a folder with wrong settings, and of a video, a very long one."""
    odd = os.fsdecode(b"h264\xff")
    site.settings("", "priority = 1")
    site.video(f"{odd}/a.mov", "a")
    wrong = os.fsdecode(b"h264/\xff")
    site.settings(wrong, 'output = "."')
    site.video(f"{wrong}/b.mov", "b")
    site.video("h264/" + os.fsdecode(b"\x80" * 251) + ".mov", "c")
    site.video("h264/d.mov", "d")
    site.daemon.refused_codecs = {"h264\ufffd"}
    await site.live(ends=True)
    assert [job.job_size for job in site.daemon.all] == [1e-6] * 2
    assert site.report("done/h264/d.mov")["status"] == "completed"
    assert site.report(f"done/{odd}/a.mov")["status"] == "rejected"
    assert (site.watch / wrong / PROBLEM_NAME).exists()


async def test_a_report_of_another_program_that_cannot_be_read_is_left_alone(site: Site) -> None:
    theirs = site.watch / "done/h264/a.mov.report.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[" * 60_000)
    site.video("h264/a.mov")
    await site.live(ends=True)
    assert len([*theirs.parent.glob("a.mov.*.report.json")]) == 1
    assert theirs.read_text().startswith("[[")


async def test_a_video_on_which_the_daemon_fails_gets_a_report_that_names_the_plugin(
    site: Site,
) -> None:
    site.video("h264/a.mov")
    site.daemon.down = ZeroDivisionError("a bug")
    await site.live()
    report = site.report("done/h264/a.mov")
    assert report["status"] == "rejected"
    assert "'hot-folder'" in str(report["error"])


async def test_settings_that_are_still_being_written_delay_the_folder(site: Site) -> None:
    site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.scan(service, times=1)
        for length in range(1, 4):
            site.settings("h264", "#" * length)
            assert await site.scan(service, times=1) == 0
        assert await site.scan(service, times=2) == 1


async def test_settings_that_are_a_link_are_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text("priority = 2")
    site.video("h264/a.mov")
    (site.watch / "h264/distconv.toml").symlink_to(tmp_path / "secret.toml")
    await site.live()
    assert site.daemon.all == []
    assert "symbolic link" in (site.watch / "h264" / PROBLEM_NAME).read_text()


async def test_results_can_be_put_to_a_server_and_the_report_stays_with_the_video(
    site: Site,
) -> None:
    site.settings("h264", 'output = "https://media.example/in"')
    site.video("h264/a b/c.mov")
    await site.live(ends=True)
    [job] = site.daemon.all
    assert job.output
    assert job.output.url == "https://media.example/in/a%20b/"
    assert site.report("h264/a b/c.mov")["status"] == "completed"


def test_the_settings_in_the_documentation_of_hot_folders_are_valid() -> None:
    text = (Path(__file__).parents[3] / "docs" / "spool.md").read_text()
    shown = re.findall(r"```toml\n(.*?)```", text[text.index("## Hot folders") :], re.DOTALL)
    table = tomllib.loads(shown[0])["plugin"]["hot-folder"]
    assert msgspec.convert(table, HotFolderSettings) == HotFolderSettings(watch="/srv/watch")
    assert (
        make_output_rule(Path("/srv/watch"), "h265", shown[1].encode()).base
        == "/srv/watch/done/films"
    )
    assert f"{hot_tree.FILES_MAX:,} videos" in text


@pytest.mark.parametrize(
    "output", ["/etc/cron.d", "../../../out", "file:///etc", "link/out", "../.."]
)
def test_an_output_outside_of_the_allowed_roots_is_refused(site: Site, output: str) -> None:
    outside = site.watch.parent / "outside"
    outside.mkdir()
    (site.watch / "h264").mkdir()
    (site.watch / "h264" / "link").symlink_to(outside)
    with pytest.raises(WrongSettings):
        make_output_rule(site.watch, "h264", f'output = "{output}"'.encode())


def test_an_allowed_root_is_allowed_with_all_below_it(tmp_path: Path) -> None:
    watch, root = tmp_path / "watch", tmp_path / "out"
    for folder in (root, root / "a" / "b"):
        text = f'output = "{folder}"'.encode()
        assert make_output_rule(watch, "h264", text, [root]).base == str(folder)
        with pytest.raises(WrongSettings, match="output_roots"):
            make_output_rule(watch, "h264", text)
    with pytest.raises(WrongSettings, match="output_roots"):
        make_output_rule(watch, "h264", f'output = "{root}-x"'.encode(), [root])


def test_a_report_is_not_written_through_a_link_out_of_the_roots(tmp_path: Path) -> None:
    watch, outside = tmp_path / "watch", tmp_path / "outside"
    watch.mkdir()
    outside.mkdir()
    (watch / "done").symlink_to(outside)
    order = SimpleNamespace(report_folder=str(watch / "done"), path="h264/a.mov")
    with pytest.raises(OSError, match="output_roots"):
        write_report(OsDisk(), cast(Any, order), 1, None, None, [watch])
    assert not list(outside.iterdir())
