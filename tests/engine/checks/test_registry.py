"""Results list checks in one order, and notes apart from them."""

from distconv_engine.checks.registry import Check, fallback_from, in_order


def test_checks_are_listed_once_and_in_the_registry_s_order() -> None:
    passed = [Check.SOURCE_UNCHANGED, Check.FRAMES, Check.CONTAINER, Check.FRAMES]
    assert in_order(passed) == ["container", "frames", "source-unchanged"]


def test_a_fallback_s_note_names_the_encoder() -> None:
    assert fallback_from("h264_nvenc") == "fallback-from-h264_nvenc"
