"""Test where results go, and that they arrive whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.engine.daemon import KEY, FakeDaemon

from distconv_engine.backoff import Backoff
from distconv_engine.failures import EngineFault, InputFault, NotAllowedHere, TransientFault
from distconv_engine.transfer import publish
from distconv_engine.transfer.destination import (
    FileTarget,
    HttpTarget,
    choose_target,
    default_name,
    directory_of,
    is_media_store,
)
from distconv_engine.transfer.publish import publish_file, publish_http, temporary_of
from distconvd.model import FailureClass, Job

CONTENT = b"film" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def target(
    output: dict[str, str] | None = None,
    engine_output: str | None = None,
    source: str = "http://h/a/clip.one.mkv?x=1",
    roots: tuple[Path, ...] = (),
) -> Any:
    fields = {"job_id": "1_1", "source_url": source, "target_codec": "h264", "output": output}
    job = msgspec.convert(fields, Job)
    return choose_target(job, ".mp4", output=engine_output, server="http://d:1/", roots=roots)


def test_without_any_setting_the_output_goes_to_the_daemons_media_store() -> None:
    assert target() == HttpTarget("http://d:1/media/1_1/clip.one.mp4", is_media_store=True)


def test_the_engines_output_is_a_directory_or_a_url_with_a_folder_for_each_job(
    tmp_path: Path,
) -> None:
    found = target(engine_output=str(tmp_path))
    assert found == FileTarget(tmp_path, "clip.one.mp4", False, "clip.one-1_1.mp4")
    assert target(engine_output="http://s/x/") == HttpTarget("http://s/x/1_1/clip.one.mp4")


def test_the_jobs_own_output_wins(tmp_path: Path) -> None:
    roots = (tmp_path,)
    url = tmp_path.as_uri()
    assert target({"url": "http://o/film.mp4"}, "/x") == HttpTarget("http://o/film.mp4")
    assert target({"url": "http://o/d/", "name": "f g"}) == HttpTarget("http://o/d/f%20g")
    assert target({"url": url}, roots=roots).name == "clip.one.mp4"
    assert target({"url": f"{url}/new.mp4"}, roots=roots) == FileTarget(
        tmp_path, "new.mp4", True, "clip.one-1_1.mp4"
    )
    assert target({"name": "film.mkv"}, str(tmp_path)).name == "film.mkv"


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "/etc/x", "x" * 300, "a\0b"])
def test_an_output_name_that_is_not_a_plain_file_name_is_rejected(name: str) -> None:
    with pytest.raises(InputFault):
        target({"name": name})


@pytest.mark.parametrize("url", ["file:///etc/x.mp4", "{root}/../x.mp4", "{root}/link/x.mp4"])
def test_an_output_outside_of_the_roots_is_rejected(url: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(EngineFault):
        target({"url": url.replace("{root}", root.as_uri())}, roots=(root,))


@pytest.mark.parametrize(
    "url,name",
    [
        ("file:///a/-x.mp4", "-x.mp4"),
        ("http://h/", "output.mp4"),
        ("http://h/%2e%2e", "output.mp4"),
        ("http://h/a%2Fb.mkv", "b.mp4"),
        ("http://h/a%00%0a.mkv", "a__.mp4"),
        ("http://h/" + "x" * 400 + ".mkv", "x" * 200 + ".mp4"),
        ("http://h/film", "film.mp4"),
    ],
)
def test_a_name_made_from_the_source_is_harmless(url: str, name: str) -> None:
    assert default_name(url, ".mp4") == name


@pytest.mark.parametrize(
    "url,verdict",
    [
        ("http://d:1/media/a.mp4", True),
        ("http://d:1/jobs/1", False),
        ("http://d:2/media/a.mp4", False),
        ("https://d:1/media/a.mp4", False),
        ("http://d:1@evil/media/a.mp4", False),
        ("http://d:1/media/../jobs", False),
    ],
)
def test_only_the_daemons_own_media_store_is_given_the_key(url: str, verdict: bool) -> None:
    assert is_media_store(url, "http://d:1/") is verdict


# ----------------------------------------------------------------------------------- directories


async def put(tmp_path: Path, found: FileTarget, source: Path | None = None) -> str:
    path = tmp_path / "verified"
    path.write_bytes(CONTENT)
    return await publish_file(path, SHA256, found, temporary_of(found, "1_1.1"), source)


async def test_a_published_file_gets_its_name_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    url = await put(tmp_path, FileTarget(tmp_path / "new" / "dir", "ü x.mp4", False, "spare"))
    assert url.endswith("/new/dir/%C3%BC%20x.mp4")
    assert [p.name for p in (tmp_path / "new" / "dir").iterdir()] == ["ü x.mp4"]


async def test_a_name_made_from_the_source_never_replaces_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"precious")
    found = FileTarget(tmp_path, "a.mp4", False, "a-1_1.mp4")
    assert (await put(tmp_path, found)).endswith("/a-1_1.mp4")
    assert (await put(tmp_path, found)).endswith("/a-1_1.mp4")  # its own earlier attempt
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


async def test_a_name_that_the_job_chose_replaces_a_file_but_never_the_source(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    found = FileTarget(tmp_path, "a.mp4", True, "spare")
    with pytest.raises(InputFault):
        await put(tmp_path, found, source=tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    await put(tmp_path, found)
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT


async def test_an_output_on_another_disk_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, to: Path) -> Path:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(Path, "rename", refuse)
    await put(tmp_path, FileTarget(tmp_path / "out", "a.mp4", False, "spare"))
    assert (tmp_path / "out" / "a.mp4").read_bytes() == CONTENT


@pytest.mark.parametrize("code,kind", [(errno.ENOSPC, TransientFault), (errno.EACCES, EngineFault)])
async def test_a_full_disk_is_transient_another_disk_error_an_engine_fault_and_no_partial_file_remains(
    code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(publish, "fsync_file", fail)
    with pytest.raises(kind):
        await put(tmp_path, FileTarget(tmp_path / "out", "a.mp4", False, "spare"))
    assert not list((tmp_path / "out").iterdir())


# ------------------------------------------------------------------------------------------ HTTP


async def send(
    client: httpx.AsyncClient, tmp_path: Path, to: HttpTarget, sha256: str = SHA256
) -> str:
    path = tmp_path / "verified"
    path.write_bytes(CONTENT)
    return await publish_http(
        client,
        path,
        sha256,
        to,
        key=KEY,
        content_type="video/mp4",
        on_progress=lambda part: None,
    )


async def test_a_put_carries_length_and_digest_and_the_key_only_to_the_media_store(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    for is_ours in (False, True):
        url = f"{daemon.url}/media/a.mp4"
        assert await send(client, tmp_path, HttpTarget(url, is_ours)) == url
    assert daemon.media["/media/a.mp4"] == CONTENT
    assert [("x-api-key" in headers) for _, headers in daemon.puts] == [False, True]
    assert daemon.puts[0][1]["content-length"] == str(len(CONTENT))


async def test_a_put_is_tried_again_after_a_5xx_and_not_after_a_403(
    client: httpx.AsyncClient,
    daemon: FakeDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.0)
    daemon.put_statuses = [503, 500, 201]
    await send(client, tmp_path, HttpTarget(f"{daemon.url}/a"))
    assert len(daemon.puts) == 3
    daemon.put_statuses = [503] * 20
    with pytest.raises(TransientFault):
        await send(client, tmp_path, HttpTarget(f"{daemon.url}/a"))
    daemon.put_statuses = [403]
    with pytest.raises(EngineFault):
        await send(client, tmp_path, HttpTarget(f"{daemon.url}/a"))


async def test_a_507_of_the_server_is_transient_and_the_output_is_not_sent_again(
    client: httpx.AsyncClient, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.put_statuses = [507]
    with pytest.raises(TransientFault, match="507"):
        await send(client, tmp_path, HttpTarget(f"{daemon.url}/a"))
    assert len(daemon.puts) == 1


def test_file_urls_of_outputs_and_sources_need_not_be_utf_8(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    root.mkdir()
    named = target({"url": f"{root.as_uri()}/out%FE.mp4"}, roots=(root,))
    assert os.fsencode(named.directory / named.name).endswith(b"/bad\xff/out\xfe.mp4")
    assert directory_of(root.as_uri()) == root
    assert target(source="file:///a/bad%FF.mov").url.endswith("/bad%EF%BF%BD.mp4")
    with pytest.raises(NotAllowedHere) as caught:
        target({"url": "file:///outside/%FF.mp4"}, roots=(root,))
    assert caught.value.error_class is FailureClass.NOT_ALLOWED
