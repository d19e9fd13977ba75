"""Check that the encoders accept whatever the table of codecs allows."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engine.clips import Clips

from distconv_engine.encode.command import Request, commands
from distconv_engine.encode.plan import make_plan
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls, run
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.media.ffmpeg import Ffmpeg
from distconvd.model import CODECS, Job, TranscodeOptions


@pytest.mark.e2e
@pytest.mark.parametrize("codec", CODECS)
async def test_every_value_and_range_end_in_the_table_is_accepted_by_the_encoder(
    codec: str, tools: Tools, capabilities: Capabilities, clips: Clips, tmp_path: Path
) -> None:
    rules, source = CODECS[codec], clips.odd("one-frame")
    wishes: list[dict[str, Any]] = [{"preset": rules.presets[end]} for end in (0, -1)]
    wishes += [{"tune": word} for word in rules.tunes]
    wishes += [{"crf": rules.crf[0]}, {"crf": rules.crf[-1]}]
    wishes += [{"video_bitrate_kbps": kbps} for kbps in (1, rules.bitrate_kbps_max)]
    found = await Ffmpeg(tools, Controls()).probe(file_url(source))
    for wish in wishes:
        options = msgspec.convert(wish, TranscodeOptions)
        plan = make_plan(Job("1", source.as_uri(), codec, options=options), found)
        encoder, output = capabilities.encoders(codec)[0].encoder, file_url(tmp_path / "out")
        (argv,) = commands(Request(tools, file_url(source), plan, options, encoder, output))
        ended = await run(argv, Controls(), cwd=tmp_path)
        assert ended.code == 0, (wish, ended.diagnosis.tail)
        assert "has not been used" not in ended.diagnosis.tail, wish
