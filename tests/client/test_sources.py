"""Test how typed sources and outputs become fields of a submission."""

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distconv_client import BadInput, submission_for
from distconv_client.sources import absolute, is_url, output_for


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a clip.mov"
    path.write_bytes(b"x" * 1_500_000)
    return path


def test_a_path_becomes_an_absolute_encoded_file_url(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    submission = submission_for("./a clip.mov", "av1")
    assert submission.source_url == f"file://{clip.parent}/a%20clip.mov"


def test_the_size_is_measured_in_megabytes_of_a_million_bytes(clip: Path) -> None:
    assert submission_for(clip, "av1").job_size == 1.5
    assert submission_for(clip, "av1", size_mb=7).job_size == 7


def test_the_checksum_is_computed_only_when_requested(clip: Path) -> None:
    expected = hashlib.sha256(clip.read_bytes()).hexdigest()
    assert submission_for(clip, "av1").source_sha256 is None
    assert submission_for(clip, "av1", with_sha256=True).source_sha256 == expected


def test_a_url_is_used_unchanged(clip: Path) -> None:
    submission = submission_for("https://example.org/a%20b.mkv?x=1", "vp9", size_mb=420)
    assert submission.source_url == "https://example.org/a%20b.mkv?x=1"
    assert submission.job_size == 420


def test_the_checksum_of_a_url_is_refused() -> None:
    with pytest.raises(BadInput, match="checksum of a URL cannot be computed"):
        submission_for("https://example.org/a.mkv", "vp9", with_sha256=True)


def test_further_fields_go_into_the_submission(clip: Path) -> None:
    assert submission_for(clip, "av1", priority=2, labels={"a": "b"}).labels == {"a": "b"}


def test_an_unusable_source_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mov").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("missing.mov", "No such file"),
        ("empty.mov", "is empty"),
        ("pipe", "not a regular file"),
        (".", "is a directory"),
    ):
        with pytest.raises(BadInput, match=said) as caught:
            submission_for(tmp_path / name, "av1")
        assert str(tmp_path) in caught.value.message


def test_links_keep_their_names_but_dots_are_resolved_as_on_disk(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "a.mov").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "latest.mov").symlink_to(tmp_path / "real" / "a.mov")
    assert absolute(tmp_path / "latest.mov") == tmp_path / "latest.mov"
    assert absolute(tmp_path / "link" / ".." / "a.mov") == tmp_path / "real" / "a.mov"
    assert absolute(tmp_path / "real" / "deep" / ".." / "a.mov") == tmp_path / "real" / "a.mov"


@given(name=st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1))
def test_any_file_name_survives_in_a_url(name: str) -> None:
    url = absolute(Path("/srv") / f"x{name}").as_uri()
    parts = urlsplit(url)
    assert unquote(parts.path) == f"/srv/x{name}"
    assert url.isascii()
    assert (parts.query, parts.fragment) == ("", "")


@pytest.mark.parametrize(
    "word, expected",
    [("http://a/b", True), ("s3://b/k", True), ("file:///a", True), ("a.mov", False),
     ("C:/a.mov", False), ("dir/a:b.mov", False), ("a://", True), ("://", False)],
)  # fmt: skip
def test_urls_and_paths_are_distinguished(word: str, expected: bool) -> None:
    assert is_url(word) is expected


def test_a_directory_as_output_ends_with_a_slash(tmp_path: Path) -> None:
    assert output_for(str(tmp_path)).url == f"file://{tmp_path}/"
    assert output_for(f"{tmp_path}/new dir").url == f"file://{tmp_path}/new%20dir/"
    assert output_for(f"{tmp_path}/v1.2/").url == f"file://{tmp_path}/v1.2/"
    assert output_for("/").url == "file:///"


def test_a_file_as_output_is_for_one_source_only(tmp_path: Path) -> None:
    assert output_for(f"{tmp_path}/out.mp4").url == f"file://{tmp_path}/out.mp4"
    with pytest.raises(BadInput, match="is one file, but there are 2 sources"):
        output_for(f"{tmp_path}/out.mp4", sources=2)


def test_an_output_url_is_used_unchanged() -> None:
    assert output_for("https://example.org/put/", sources=9).url == "https://example.org/put/"
