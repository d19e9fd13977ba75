"""Check which limits and pauses the children of an `Ffmpeg` get."""

import sys

import pytest
import trio

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.child import ChildLimits
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.ffmpeg import Ffmpeg

TOOLS = Tools("ffmpeg", "ffprobe", "8")
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


async def wait_for_child(controls: Controls) -> None:
    while not controls.children:
        await trio.sleep(0.005)


async def test_children_in_the_background_are_paused_with_the_attempt() -> None:
    controls = Controls(ChildLimits(niceness=2))
    background = Ffmpeg(TOOLS, controls).in_background(19)
    assert background.controls.limits.niceness == 19
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(background.run, SLEEP)
            await wait_for_child(controls)
            (child,) = controls.children
            controls.set_paused(True)
            assert child.paused
            nursery.cancel_scope.cancel()


async def test_children_without_pause_run_on_and_keep_the_limits() -> None:
    controls = Controls(ChildLimits(niceness=2), paused=True)
    readers = Ffmpeg(TOOLS, controls).without_pause(stall_s=0.3)
    assert readers.controls.limits == controls.limits
    # A paused child would not stall: it is known to make no progress.
    with pytest.raises(EngineFault, match="stalled"), trio.fail_after(20):
        await readers.run(SLEEP)
    assert not controls.children


def test_another_ffmpeg_has_the_same_controls() -> None:
    controls = Controls()
    other = Ffmpeg(TOOLS, controls).using(Tools("other", "ffprobe", "8"))
    assert other.tools.ffmpeg == "other"
    assert other.controls is controls
