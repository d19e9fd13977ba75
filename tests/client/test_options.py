"""Test the flags of TranscodeOptions: every field has one, and gets the typed value."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from distconv_client.options import FLAGS, transcode_flags, transcode_options
from distconvd.model import TranscodeOptions


@click.command()
@transcode_flags
def probe(**given: Any) -> None:
    click.echo(repr(transcode_options(given)))


def parsed(*words: str) -> str:
    result = CliRunner().invoke(probe, words)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_every_field_of_the_model_has_a_flag() -> None:
    assert list(FLAGS) == list(TranscodeOptions.__struct_fields__)


def test_an_omitted_flag_keeps_the_models_default() -> None:
    assert parsed() == repr(TranscodeOptions())


@pytest.mark.parametrize(
    "line, fields",
    [
        ("--container webm", {"container": "webm"}),
        ("--crf 23", {"crf": 23}),
        ("--video-bitrate 4000 --two-pass", {"video_bitrate_kbps": 4000, "two_pass": True}),
        ("--one-pass", {"two_pass": False}),
        ("--preset slow --tune film", {"preset": "slow", "tune": "film"}),
        ("--max-width 1920 --max-height 1080", {"max_width": 1920, "max_height": 1080}),
        ("--max-fps 29.97", {"max_fps": 29.97}),
        (
            "--audio-codec none --audio-bitrate 96",
            {"audio_codec": "none", "audio_bitrate_kbps": 96},
        ),
        ("--subtitles drop", {"subtitles": "drop"}),
        ("--no-faststart", {"faststart": False}),
        ("--on-unsupported drop", {"on_unsupported": "drop"}),
        ("--on-damage convert", {"on_damage": "convert"}),
    ],
)
def test_a_flag_sets_its_field(line: str, fields: dict[str, Any]) -> None:
    assert parsed(*line.split()) == repr(TranscodeOptions(**fields))


@pytest.mark.parametrize("line", ["--container avi", "--crf high", "--max-fps fast", "--subtitles"])
def test_a_wrong_value_is_a_usage_error(line: str) -> None:
    assert CliRunner().invoke(probe, line.split()).exit_code == 2
