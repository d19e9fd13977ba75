"""Weigh ffmpeg's messages about a source against what was counted in it.

`ffmpeg.messages` says what each kind of message is worth. What has to be confirmed is confirmed here:
by the packets of the scan, by the frames of the encode, or by a decode that takes no fault lightly.
"""

from collections.abc import Mapping

from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.messages import Confirmed
from distconv_engine.ffmpeg.stderr import Diagnosis, Doubt
from distconv_engine.media.packets import PacketScan
from distconv_engine.media.probe import Probe

_GAP_S = 0.1
"""A longer silence between two packets may be where others were lost."""


def weigh_scan(found: Probe, scan: PacketScan) -> None:
    """Refuse what the packets confirm; pure. Raises `InputFault`.

    Flagged packets are judged by themselves, and what only frames can show after the encode.
    """
    for doubt in scan.diagnosis.doubts.values():
        if doubt.kind.confirmed is Confirmed.AFTER_FIRST_KEY and not _begins_mid_group(found, scan):
            raise _damaged(doubt, scan.diagnosis)
        if doubt.kind.confirmed is Confirmed.BY_FRAMES and _has_gap(scan):
            raise _damaged(doubt, scan.diagnosis)


def before_first_key(found: Probe, scan: PacketScan) -> dict[int, int]:
    """Return how many packets come before the first key frame, by stream of pictures."""
    counts = {s.index: scan.of(s.index).before_key for s in found.streams if s.is_video}
    return {index: count for index, count in counts.items() if count}


def weigh_decode(diagnosis: Diagnosis, before_key: Mapping[int, int]) -> Doubt | None:
    """Weigh what decoders said of the source; pure. Returns a message that a strict decode must judge.

    Args:
        diagnosis: of the run that decoded it.
        before_key: how many packets come before the first key frame, by stream.

    Raises:
        InputFault: frames are missing that no key frame explains.
    """
    for index, count in diagnosis.read.items():
        lost = count.errors - before_key.get(index, 0)
        if lost > 0:
            words = "1 frame" if lost == 1 else f"{lost} frames"
            raise InputFault(
                f"The source is damaged: {words} cannot be decoded.", log_tail=diagnosis.tail
            )
    for doubt in diagnosis.doubts.values():
        if doubt.kind.confirmed is Confirmed.AFTER_FIRST_KEY and not before_key:
            raise _damaged(doubt, diagnosis)
    unknown = (d for d in diagnosis.doubts.values() if d.kind.confirmed is Confirmed.BY_FRAMES)
    return next(unknown, None)


def _begins_mid_group(found: Probe, scan: PacketScan) -> bool:
    return bool(before_first_key(found, scan))


def _has_gap(scan: PacketScan) -> bool:
    return any(stream.gap_s > _GAP_S for stream in scan.streams.values())


def _damaged(doubt: Doubt, diagnosis: Diagnosis) -> InputFault:
    return InputFault(f"The source is cut or damaged: {doubt.words}", log_tail=diagnosis.tail)
