"""Test where results go, and that they arrive whole or not at all."""

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.engine.daemon import KEY, FakeDaemon

from distconv_engine.backoff import Backoff
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    NotAllowedHere,
    OutputRefused,
    TransientFault,
)
from distconv_engine.transfer.destination import (
    FileTarget,
    HttpTarget,
    choose_target,
    default_name,
    directory_of,
    is_media_store,
)
from distconv_engine.transfer.publish import (
    publish_file,
    publish_http,
    require_free_name,
    temporary_of,
)
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
    assert found == FileTarget(
        tmp_path, "clip.one.mp4", "1_1", tmp_path, (), "clip.one-1_1.mp4", False
    )
    assert target(engine_output="http://s/x/") == HttpTarget("http://s/x/1_1/clip.one.mp4")


def test_the_jobs_own_output_wins(tmp_path: Path) -> None:
    roots = (tmp_path,)
    url = tmp_path.as_uri()
    assert target({"url": "http://o/film.mp4"}, "/x") == HttpTarget(
        "http://o/film.mp4", is_of_job=True
    )
    assert target({"url": "http://o/d/", "name": "f g"}) == HttpTarget(
        "http://o/d/f%20g", is_of_job=True
    )
    assert target({"url": url}, roots=roots).name == "clip.one.mp4"
    named = target({"url": f"{url}/a/new.mp4"}, roots=roots)
    assert named == FileTarget(tmp_path / "a", "new.mp4", "1_1", tmp_path, ("a",), None, False)
    assert target({"name": "film.mkv"}, str(tmp_path)).name == "film.mkv"


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "/etc/x", "x" * 300, "a\0b", ".bashrc", ".x.mp4"]
)
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


@pytest.mark.parametrize("path", [".bashrc", ".ssh/authorized_keys", "a/.b/c.mp4", ".d/", "%2ed/x"])
def test_an_output_in_a_dot_file_or_a_dot_folder_is_rejected(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="dot"):
        target({"url": f"{tmp_path.as_uri()}/{path}"}, roots=(tmp_path,))


def test_a_root_may_lie_in_a_dot_folder(tmp_path: Path) -> None:
    root = tmp_path / ".local" / "media"
    root.mkdir(parents=True)
    assert target({"url": f"{root.as_uri()}/a.mp4"}, roots=(root,)).name == "a.mp4"


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


def place(root: Path, *parts: str, name: str = "a.mp4", **fields: Any) -> FileTarget:
    """Return a target below a root, of the job 1_1, which chose the name."""
    return FileTarget(root.joinpath(*parts), name, "1_1", root, parts, **fields)


async def put(
    tmp_path: Path, found: FileTarget, source: Path | None = None, content: bytes = CONTENT
) -> str:
    path = tmp_path / "verified"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return await publish_file(path, digest, found, temporary_of(found, "1_1.1"), source)


async def test_a_published_file_gets_its_name_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    url = await put(tmp_path, place(tmp_path / "new", "dir", name="ü x.mp4"))
    assert url.endswith("/new/dir/%C3%BC%20x.mp4")
    assert [p.name for p in (tmp_path / "new" / "dir").iterdir()] == ["ü x.mp4"]


async def test_a_name_made_from_the_source_never_replaces_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"precious")
    found = place(tmp_path, spare_name="a-1_1.mp4")
    assert (await put(tmp_path, found)).endswith("/a-1_1.mp4")
    assert (await put(tmp_path, found)).endswith("/a-1_1.mp4")  # its own earlier attempt
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


async def test_a_spare_name_that_another_job_has_taken_is_not_replaced(tmp_path: Path) -> None:
    for name in ("a.mp4", "a-1_1.mp4"):
        (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(InputFault, match="exists already"):
        await put(tmp_path, place(tmp_path, spare_name="a-1_1.mp4"))
    assert {p.read_bytes() for p in tmp_path.glob("a*.mp4")} == {b"precious"}


async def test_a_name_that_the_job_chose_replaces_a_file_only_where_the_job_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"precious")
    with pytest.raises(InputFault, match=r"options\.overwrite"):
        await put(tmp_path, place(tmp_path))
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"
    assert not list(tmp_path.glob("*part"))
    await put(tmp_path, place(tmp_path, overwrite=True))
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT


async def test_what_could_not_be_published_is_known_before_it_is_made(tmp_path: Path) -> None:
    await require_free_name(place(tmp_path / "not there"), None)
    await require_free_name(place(tmp_path), None)
    (tmp_path / "a.mp4").write_bytes(b"precious")
    with pytest.raises(InputFault, match="exists already"):
        await require_free_name(place(tmp_path), None)
    await require_free_name(place(tmp_path, overwrite=True), None)
    await require_free_name(place(tmp_path, spare_name="b.mp4"), None)


async def test_a_job_replaces_its_own_earlier_result(tmp_path: Path) -> None:
    await put(tmp_path, place(tmp_path), content=b"first")
    await put(tmp_path, place(tmp_path))
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["another job", "edited", "copied without attributes"])
async def test_what_is_no_longer_its_own_result_is_not_replaced(
    change: str, tmp_path: Path
) -> None:
    found, result = place(tmp_path), tmp_path / "a.mp4"
    await put(tmp_path, found, content=b"first")
    if change == "another job":
        found = replace(found, job_id="2_2")
    elif change == "edited":
        result.write_bytes(b"edited by hand")
    else:
        os.removexattr(result, "user.distconv.job")
    kept = result.read_bytes()
    with pytest.raises(InputFault, match="exists already"):
        await put(tmp_path, found)
    assert result.read_bytes() == kept


async def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(b"old")
    for found in (place(tmp_path, overwrite=True), place(tmp_path)):
        with pytest.raises(InputFault, match="own source"):
            await put(tmp_path, found, source=source)
        with pytest.raises(InputFault, match="own source"):
            await require_free_name(found, source)
    assert source.read_bytes() == b"old"


async def test_a_link_of_the_outputs_name_is_replaced_itself_and_never_followed(
    tmp_path: Path,
) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_bytes(b"precious")
    (root / "a.mp4").symlink_to(victim)
    with pytest.raises(InputFault, match="exists already"):
        await put(tmp_path, place(root))
    await put(tmp_path, place(root, overwrite=True))
    assert victim.read_bytes() == b"precious"
    assert not (root / "a.mp4").is_symlink()


@pytest.mark.parametrize("where", ["folder", "folder above"])
async def test_a_folder_that_became_a_link_after_it_was_checked_is_not_entered(
    where: str, tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a" / "b").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)
    found = target({"url": f"{root.as_uri()}/a/b/x.mp4"}, roots=(root,))
    replaced = root / "a" / "b" if where == "folder" else root / "a"
    replaced.rename(tmp_path / "moved away")
    replaced.symlink_to(outside / "b" if where == "folder" else outside)
    with pytest.raises(NotAllowedHere, match="link"):
        await put(tmp_path, found)
    with pytest.raises(NotAllowedHere, match="link"):
        await require_free_name(found, None)
    assert not [p for p in outside.rglob("*") if p.is_file()]


async def test_a_link_that_leads_to_a_folder_below_a_root_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = target({"url": f"{tmp_path.as_uri()}/link/x.mp4"}, roots=(tmp_path,))
    assert (await put(tmp_path, found)).endswith("/link/x.mp4")
    assert (tmp_path / "real" / "x.mp4").read_bytes() == CONTENT


async def test_a_file_that_waits_under_the_temporary_name_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_another_disk(monkeypatch)
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_bytes(b"precious")
    temporary_of(place(root), "1_1.1").symlink_to(victim)
    await put(tmp_path, place(root))
    assert victim.read_bytes() == b"precious"
    assert (root / "a.mp4").read_bytes() == CONTENT


async def test_an_output_on_another_disk_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_another_disk(monkeypatch)
    await put(tmp_path, place(tmp_path, "out"))
    assert (tmp_path / "out" / "a.mp4").read_bytes() == CONTENT


async def test_a_disk_without_attributes_or_links_takes_results_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "link", refuse)
    await put(tmp_path, place(tmp_path))
    with pytest.raises(InputFault, match="exists already"):
        await put(tmp_path, place(tmp_path))
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT


def _on_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refuse(old: Any, new: Any, **where: Any) -> None:
        if "src_dir_fd" not in where:
            raise OSError(errno.EXDEV, "another disk")
        rename(old, new, **where)

    monkeypatch.setattr(os, "rename", refuse)


@pytest.mark.parametrize("code,kind", [(errno.ENOSPC, TransientFault), (errno.EACCES, EngineFault)])
async def test_a_full_disk_is_transient_another_disk_error_an_engine_fault_and_no_partial_file_remains(
    code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind):
        await put(tmp_path, place(tmp_path, "out"))
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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413])
async def test_a_refusal_by_the_jobs_own_place_is_not_the_engines_fault(
    tmp_path: Path, status: int
) -> None:
    (path := tmp_path / "out.mp4").write_bytes(CONTENT)
    transport = httpx.MockTransport(lambda request: httpx.Response(status))

    async def put(target: HttpTarget) -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            await publish_http(
                client, path, SHA256, target,
                key=None, content_type="video/mp4", on_progress=lambda part: None,
            )  # fmt: skip

    with pytest.raises(OutputRefused, match=f"http://o/a.mp4: it answered {status}") as caught:
        await put(HttpTarget("http://o/a.mp4", is_of_job=True))
    assert caught.value.error_class is FailureClass.OUTPUT
    with pytest.raises(EngineFault):  # its own --output
        await put(HttpTarget("http://o/a.mp4"))
