"""An output that is written in its place goes to the file that was opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.engine.attempts import make_attempt

from distconv_engine.checks.source import CheckedSource
from distconv_engine.failures import NotAllowedHere
from distconv_engine.pipeline.file_sinks import TargetDirectory
from distconv_engine.transfer.destination import FileTarget, choose_target
from distconv_engine.transfer.publish import publish_file, temporary_of
from distconvd.model import Job


@contextmanager
def open_sink(tmp_path: Path) -> Iterator[tuple[TargetDirectory, FileTarget]]:
    """Open the sink of a streamed job whose output goes to the folder root/a."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    url = f"{(tmp_path / 'root' / 'a').as_uri()}/film.mp4"
    fields = {"job_id": "1_0", "source_url": "http://h/a", "target_codec": "h264"}
    job = msgspec.convert({**fields, "output": {"url": url}}, Job)
    roots = [tmp_path / "root"]
    target = choose_target(job, ".mp4", output=None, server="http://d", roots=roots)
    assert isinstance(target, FileTarget)
    attempt = make_attempt(job, tmp_path)
    source: Any = SimpleNamespace(path=None, state=SimpleNamespace(size_bytes=1))
    sink = TargetDirectory(attempt, cast(CheckedSource, source), target)
    try:
        yield sink, target
    finally:
        sink.close()


async def test_an_encode_writes_below_the_root_although_its_folder_became_a_link(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with open_sink(tmp_path) as (sink, target):
        await sink.prepare()
        (tmp_path / "root" / "a").rename(tmp_path / "root" / "was a")
        (tmp_path / "root" / "a").symlink_to(outside)
        sink.path.write_bytes(b"film")  # what ffmpeg does
        with pytest.raises(NotAllowedHere, match="link"):
            await publish_file(temporary_of(target, "1_0.0"), "", target, Path("x"), None)
    assert not list(outside.iterdir())


async def test_what_waits_under_the_partial_files_name_is_not_written_into(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with open_sink(tmp_path) as (sink, target):
        sink.path.symlink_to(victim)
        await sink.prepare()
        sink.path.write_bytes(b"film")
        partial = temporary_of(target, "1_0.0")
        assert partial.read_bytes() == b"film"
    assert victim.read_bytes() == b"precious"
