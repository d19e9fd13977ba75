"""Test the checks of disk space, and that a disk that fills up costs nothing but time."""

import errno
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.engine.clips import Clips
from tests.engine.daemon import wait_until
from tests.engine.measured import Measured
from tests.engine.site import Site, open_site

from distconv_engine import files
from distconv_engine.config import Config
from distconv_engine.failures import InsufficientSpace, TransientFault
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.host import disk_space
from distconv_engine.host.disk_space import (
    has_disk_space,
    is_shared_disk,
    keep_reserve,
    require_disk_space,
    require_space_for_output,
)
from distconv_engine.status import EngineStatus
from distconv_engine.transfer.destination import FileTarget, HttpTarget

MB = 1_000_000


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, int]], None]:
    """Set how many MB are free on the disk of each directory, by name; on the others 1000."""

    def set_free(known: dict[str, int]) -> None:
        monkeypatch.setattr(
            disk_space, "free_bytes", lambda place: known.get(place.name, 1000) * MB
        )

    return set_free


def config(tmp_path: Path, **settings: object) -> Config:
    for name in ("work", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Config(
        work_dir=tmp_path / "work",
        output=str(tmp_path / "out"),
        **settings,  # type: ignore[arg-type]
    )


async def test_a_disk_that_comes_down_to_the_reserve_ends_the_work_on_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = {tmp_path: 600 * MB}
    monkeypatch.setattr(disk_space, "free_bytes", free.__getitem__)
    config = Config(work_dir=tmp_path, disk_reserve_mb=500)
    async with keep_reserve(config, tmp_path):
        await trio.sleep(10)

    async def fill() -> None:
        async with keep_reserve(config, tmp_path):
            await trio.sleep(5)
            free[tmp_path] = 499 * MB
            await trio.sleep_forever()

    with pytest.raises(InsufficientSpace, match="full but for its reserve of 500 MB") as caught:
        await fill()
    assert caught.value.place == tmp_path
    assert (caught.value.needed or 0) > 600 * MB


def test_a_disk_that_only_a_job_names_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(work_dir=tmp_path / "work", output=str(tmp_path / "out"))
    assert is_shared_disk(config, tmp_path / "out" / "deep")
    assert not is_shared_disk(config, Path("/proc"))


@pytest.mark.parametrize(
    "disks,reserve_mb,wanted",
    [
        ({}, 512, True),
        ({"work": 512}, 512, False),
        ({"work": 513}, 512, True),
        ({"out": 100}, 512, False),
        ({"work": 0}, 0, False),
    ],
)
def test_an_engine_has_disk_space_when_every_disk_has_more_than_the_reserve(
    disks: dict[str, int],
    reserve_mb: int,
    wanted: bool,
    free: Callable[[dict[str, int]], None],
    tmp_path: Path,
) -> None:
    free(disks)
    assert has_disk_space(config(tmp_path, disk_reserve_mb=reserve_mb)) == wanted


def test_a_heartbeat_reports_a_full_disk_even_before_the_encoders_are_verified(
    free: Callable[[dict[str, int]], None], tmp_path: Path
) -> None:
    engine_status = EngineStatus(config(tmp_path), "e1", "host")
    free({"work": 1})
    assert engine_status.heartbeat().status == "disk-full"
    free({})
    assert engine_status.heartbeat().status == "starting"


def test_needs_on_one_disk_are_added_up_and_the_reserve_is_kept(
    free: Callable[[dict[str, int]], None], tmp_path: Path
) -> None:
    free({"work": 600, "out": 600})
    settings = config(tmp_path, disk_reserve_mb=100)
    require_disk_space(settings, (tmp_path / "work", 250 * MB), (tmp_path / "out", 250 * MB))
    with pytest.raises(TransientFault, match="600 MB free, but this job needs 601 MB"):
        require_disk_space(settings, (tmp_path / "work", 250 * MB), (tmp_path / "out", 251 * MB))


def test_an_output_needs_space_in_its_directory_only_if_that_is_another_disk(
    free: Callable[[dict[str, int]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, disk_reserve_mb=0)
    place = tmp_path / "out" / "not" / "there" / "yet"
    target = FileTarget(place, "a.mp4", "1_1", place)
    free({"work": 100, "out": 100})
    require_space_for_output(settings, target, 100 * MB)
    require_space_for_output(settings, HttpTarget("http://a/b"), 100 * MB)
    monkeypatch.setattr(disk_space, "_are_on_one_disk", lambda one, other: False)
    with pytest.raises(TransientFault, match="200 MB"):
        require_space_for_output(settings, target, 100 * MB)


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_ffmpegs_messages_about_a_full_disk_are_recognized(words: str) -> None:
    found = Diagnosis()
    found.line(f"[out#0/mp4 @ 0x55d0] [error] Error writing trailer: {words}")
    assert found.disk_full
    assert not found.damage


def test_a_durable_write_on_a_full_disk_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full") as caught:
        files.write_durably(tmp_path / "report", b"x")
    assert files.is_full(caught.value)
    assert files.describe_fault(caught.value) == "full"
    assert files.describe_fault(ValueError("a: [Errno 2] b")) == "a: b"
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- a real one

SMALL_MB = 24
TMPFS = shutil.which("unshare") and not subprocess.run(
    ["unshare", "--user", "--map-root-user", "--mount", "true"], check=False, capture_output=True
).returncode  # fmt: skip


@pytest.fixture
def site(clips: Clips, measured: Measured, tmp_path: Path) -> Iterator[Site]:
    """An engine whose work directory is a disk of its own, of `SMALL_MB`, that only it can see."""
    with open_site(tmp_path, measured) as found:
        mount = f'mount -t tmpfs -o size={SMALL_MB}m none "$1" && cp "$2"/* "$1" && shift 2 && exec "$@"'
        kept = found.folder / "kept"
        kept.mkdir()
        measured.keep_in(kept)
        before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
        before += [str(found.work), str(kept)]
        flags = ["--source-root", str(clips.folder), "--disk-reserve-mb", "4"]
        found.start_engine(*flags, "--output", str(tmp_path / "out"), before=before)
        yield found


@pytest.mark.e2e
@pytest.mark.skipif(not TMPFS, reason="this system does not let users mount a small disk")
def test_a_disk_that_fills_up_in_mid_encode_costs_no_retry_and_is_cleaned_up(
    site: Site, clips: Clips
) -> None:
    assert site.engine is not None
    inside = Path(f"/proc/{site.engine.pid}/root") / str(site.work)[1:]
    # Lossless, the output is many times its source: the preflight cannot know.
    options = {"crf": 0, "preset": "ultrafast"}
    job_id = site.submit(source_url=clips.noise().as_uri(), target_codec="h264", options=options)
    wait_until(lambda: len(site.ask(f"/jobs/{job_id}/attempts")) >= 1, 60)
    wait_until(lambda: site.ask(f"/jobs/{job_id}/attempts")[0]["ended_at"], 60)
    first = site.ask(f"/jobs/{job_id}/attempts")[0]
    assert (first["error_class"], site.job(job_id)["retries"]) == ("transient", 0), first
    assert "disk is full" in first["message"]
    # It reports that, wants no job for a while, and then does not start the same job again.
    wait_until(lambda: "disk-full" in json.dumps(site.ask("/engines/e1")), 10)
    wait_until(lambda: len(site.ask(f"/jobs/{job_id}/attempts")) >= 2, 60)
    wait_until(lambda: site.ask(f"/jobs/{job_id}/attempts")[1]["ended_at"], 60)
    assert "was too little for this job" in site.ask(f"/jobs/{job_id}/attempts")[1]["message"]
    site.daemon.ask("DELETE", f"/jobs/{job_id}")
    wait_until(lambda: not list((inside / "attempts").iterdir()))
    assert not (site.folder / "out").exists() or not list((site.folder / "out").iterdir())
    # Somebody else fills it: no job is taken, and the heartbeat reports it, until space is free.
    (inside / "theirs").write_bytes(bytes(23 * MB))
    wait_until(lambda: "disk-full" in json.dumps(site.ask("/engines/e1")), 10)
    again = site.submit(source_url=clips.plain().as_uri(), target_codec="h264")
    assert site.ask(f"/jobs/{again}/why")["status"] == "pending"
    (inside / "theirs").unlink()
    assert site.wait_for_end(again)["status"] == "completed"
