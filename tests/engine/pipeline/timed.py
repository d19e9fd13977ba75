"""List sources whose frames are shown at times of their own: each as ffmpeg arguments that make it."""

_A = "-f lavfi -i sine=d={}:r=48000"
_X = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p"
_RISE = (
    f"-f lavfi -i testsrc2=s=64x36:r=60:d=18 {_A.format(18)} "
    f"-vf select='if(lt(t\\,12)\\,eq(mod(n\\,6)\\,0)\\,1)' -fps_mode passthrough {_X} -c:a aac"
)
_FAST = f"-f lavfi -i testsrc2=s=64x36:r=2000:d=1 {_X} -bf 0"

TIMED: dict[str, tuple[str, str, int]] = {
    "rate-rises": ("rise.mp4", _RISE, 480),
    "rate-rises-ts": ("rise.ts", _RISE, 480),
    "rate-rises-flv": ("rise.flv", _RISE, 480),
    "phone": (
        "phone.mov",
        (
            "-f lavfi -i testsrc2=s=64x36:r=25:d=6 "
            "-vf settb=1/600,setpts='N*30+floor(N/10)*150+floor(mod(N*N*7\\,11))' "
            f"-fps_mode passthrough -enc_time_base 1/600 {_X} -bf 0 -video_track_timescale 600"
        ),
        150,
    ),
    "picture-starts-at-21-ms": (
        "late21.mkv",
        (
            f"{_A.format(3)} -itsoffset 0.021 -f lavfi -i testsrc2=s=64x36:r=25:d=3 {_X} -c:a aac "
            "-map 1 -map 0 -avoid_negative_ts disabled"
        ),
        75,
    ),
    "screen": (
        "screen.mkv",
        (
            "-f lavfi -i testsrc2=s=64x36:r=24:d=2 -vf select='not(mod(n\\,5))' -fps_mode vfr "
            "-c:v libx264 -bf 3 -b_strategy 0"
        ),
        10,
    ),
    "long-last-gap": (
        "gap.mp4",
        (
            "-f lavfi -i testsrc2=s=64x36:r=25:d=8 -vf select='lt(n\\,50)+eq(n\\,199)' "
            f"-fps_mode passthrough {_X}"
        ),
        51,
    ),
    "rate-2000": ("rate2000.mp4", _FAST, 2000),
    "rate-2000-mkv": ("rate2000.mkv", _FAST, 2000),
}
"""File name, arguments, and the number of its frames."""
