"""List odd but valid sources: each as ffmpeg arguments that make it from synthetic clips."""

_V = "-f lavfi -i testsrc2=s=160x90:r=25:d=2"
_A = "-f lavfi -i sine=d=2"
_X = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p"
_HDR = (
    "-pix_fmt yuv420p10le -c:v libx264 -preset ultrafast "
    "-vf setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=tv"
)

ODD: dict[str, tuple[str, str]] = {
    "variable-frame-rate": (
        "vfr.mp4",
        f"{_V} {_A} -vf select='not(between(mod(n\\,10)\\,3\\,5))' -fps_mode vfr {_X} -c:a aac",
    ),
    "variable-frame-rate-mkv": (
        "vfr.mkv",
        f"{_V} -vf setpts='N/25/TB+0.013*mod(N*7\\,3)/TB' -fps_mode passthrough {_X}",
    ),
    "variable-frame-rate-avi": (
        "vfr.avi",
        f"{_V} {_A} -vf select='not(between(mod(n\\,10)\\,3\\,5))' -c:v mpeg4 -c:a libmp3lame",
    ),
    "rate-23.976": (
        "ntsc.mp4",
        f"-f lavfi -i testsrc2=s=160x90:r=24000/1001:d=2 {_A} {_X} -c:a aac",
    ),
    "rate-59.94": ("fast.mkv", f"-f lavfi -i testsrc2=s=160x90:r=60000/1001:d=2 {_X}"),
    "rate-1": ("slow.mp4", f"-f lavfi -i testsrc2=s=160x90:r=1:d=5 {_X}"),
    "odd-size": (
        "odd.mkv",
        "-f lavfi -i testsrc2=s=161x91:r=25:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv444p",
    ),
    "tiny": ("tiny.mkv", "-f lavfi -i testsrc2=s=16x16:r=25:d=1 -c:v ffv1"),
    "rotated": ("rotated.mp4", "-display_rotation 90 -i {plain} -c copy"),
    "b-frames-negative-start": (
        "bframes.mp4",
        f"{_V} {_A} -c:v libx264 -bf 3 -pix_fmt yuv420p -c:a aac -movflags negative_cts_offsets",
    ),
    "b-frames-open-gop-ts": (
        "bframes.ts",
        (
            f"{_V} {_A} -c:v libx264 -bf 3 -threads 1 "
            "-x264-params open-gop=1:keyint=12 -pix_fmt yuv420p -c:a aac"
        ),
    ),
    "begins-at-an-open-group": ("opened.ts", "-ss 0.9 -i {open_gop} -c copy -muxdelay 0"),
    "edit-list": ("edited.mp4", "-ss 0.31 -i {long_gop} -c copy"),
    "late-start": ("late.mkv", "-itsoffset 3 -i {plain} -c copy -avoid_negative_ts disabled"),
    "audio-starts-late": (
        "audiolate.mp4",
        f"{_V} -itsoffset 0.7 {_A} {_X} -c:a aac",
    ),
    "audio-longer": (
        "audiolonger.mp4",
        f"{_V} -f lavfi -i sine=d=4 {_X} -c:a aac",
    ),
    "audio-shorter": (
        "audioshorter.mkv",
        f"{_V} -f lavfi -i sine=d=0.5 {_X} -c:a aac",
    ),
    "no-audio": ("silent.mp4", f"{_V} {_X}"),
    "several-audio": (
        "audios.mkv",
        (
            f"{_V} {_A} -f lavfi -i sine=440:d=2 -map 0 -map 1 -map 2 {_X} -c:a:0 ac3 -c:a:1 flac "
            "-metadata:s:a:0 language=eng -metadata:s:a:1 language=deu"
        ),
    ),
    "surround": (
        "surround.mkv",
        (
            f"{_V} -f lavfi -i anoisesrc=d=2:a=0.1 -af pan=5.1(side)|FL=c0|FR=c0|FC=c0|LFE=c0|SL=c0|SR=c0 "
            f"{_X} -c:a ac3"
        ),
    ),
    "text-subtitles": (
        "subs.mkv",
        (
            f"{_V} {_A} -i {{srt}} -map 0 -map 1 -map 2 {_X} -c:a aac -c:s srt "
            "-metadata:s:s:0 language=fre"
        ),
    ),
    "bitmap-subtitles": (
        "pgs.mkv",
        f"{_V} {_A} -i {{sup}} -map 0 -map 1 -map 2 {_X} -c:a aac -c:s copy",
    ),
    "styled-subtitles": (
        "ass.mkv",
        f"{_V} -i {{srt}} -map 0 -map 1 {_X} -c:s ass",
    ),
    "chapters": ("chapters.mkv", f"{_V} -i {{chapters}} -map 0 -map_chapters 1 {_X}"),
    "cover-art": (
        "cover.mp4",
        (
            f"{_V} {_A} -i {{cover}} -map 0 -map 1 -map 2 {_X} -c:a aac -c:v:1 copy "
            "-disposition:v:1 attached_pic"
        ),
    ),
    "ten-bit": ("ten.mkv", f"{_V} -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"),
    "hdr10": ("hdr.mkv", f"{_V} {_HDR}"),
    "interlaced": (
        "interlaced.ts",
        (
            f"-f lavfi -i testsrc2=s=320x192:r=50:d=2 {_A} "
            "-vf tinterlace=interleave_top,fieldorder=tff -c:v libx264 -preset ultrafast -pix_fmt yuv420p -flags +ilme+ildct -c:a mp2"
        ),
    ),
    "mpeg2-ps": (
        "dvd.mpg",
        f"{_V} {_A} -c:v mpeg2video -bf 2 -c:a mp2 -f vob",
    ),
    "prores-pcm": ("prores.mov", f"{_V} {_A} -c:v prores_ks -pix_fmt yuv422p10le -c:a pcm_s24le"),
    "rgb": ("rgb.avi", f"{_V} -c:v rawvideo -pix_fmt bgr24"),
    "vp8-hidden-frames": (
        "hidden.webm",
        f"{_V} {_A} -c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -b:v 200k -c:a libopus",
    ),
    "audio-only": ("sound.m4a", f"{_A} -c:a aac"),
    "audio-only-mp3": ("sound.mp3", f"{_A} -c:a libmp3lame"),
    "audio-only-flac": ("sound.flac", f"{_A} -c:a flac"),
    "one-frame": ("one.mp4", "-f lavfi -i testsrc2=s=160x90:r=25:d=0.04 " + _X),
    "one-frame-long": ("onelong.mkv", "-f lavfi -i testsrc2=s=160x90:r=1/5:d=5 " + _X),
    "gif": ("anim.gif", f"{_V}"),
    "alpha-prores": ("alpha.mov", f"{_V} -pix_fmt yuva444p10le -c:v prores_ks -profile:v 4444"),
    "alpha-vp9": ("alpha.webm", f"{_V} -pix_fmt yuva420p -c:v libvpx-vp9 -deadline realtime"),
    "time-code": ("timecode.mov", f"{_V} {_X} -timecode 01:00:00:00"),
    "live-matroska": ("live.mkv", f"{_V} {_A} {_X} -c:a aac -f matroska -live 1"),
    "dash-fragmented": (
        "cmaf.mp4",
        f"{_V} {_A} {_X} -g 10 -c:a aac -movflags +cmaf+frag_keyframe+empty_moov+default_base_moof",
    ),
    "dash-indexed": (
        "indexed.mp4",
        f"{_V} {_A} {_X} -g 10 -c:a aac -movflags +dash+frag_keyframe+global_sidx",
    ),
    "wmv": ("old.wmv", f"{_V} {_A} -c:v wmv2 -c:a wmav2"),
    "ac3": ("ac3.mkv", f"{_V} {_A} {_X} -c:a ac3"),
    "eac3": ("eac3.mkv", f"{_V} {_A} {_X} -c:a eac3"),
    "flac": ("flac.mkv", f"{_V} {_A} {_X} -c:a flac"),
    "h264-no-b-frames": (
        "nob.mp4",
        f"{_V} {_A} -c:v libx264 -bf 0 -threads 1 -pix_fmt yuv420p -c:a aac",
    ),
    "h264-raw": ("raw.h264", f"{_V} {_X}"),
    "hevc-open-gop": (
        "opengop.mkv",
        (
            f"{_V} {_A} -c:v libx265 -preset ultrafast -x265-params "
            "log-level=none:open-gop=1:keyint=15:bframes=4:pools=1:frame-threads=1 -c:a aac"
        ),
    ),
    "hevc-raw": ("raw.hevc", f"{_V} -c:v libx265 -preset ultrafast -x265-params log-level=none"),
    "mpeg2-ts": ("mpeg2.ts", f"{_V} {_A} -c:v mpeg2video -bf 2 -c:a mp2"),
    "mjpeg-avi": ("mjpeg.avi", f"{_V} {_A} -c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
    "ffv1": ("ffv1.mkv", f"{_V} -c:v ffv1 -level 3 -slicecrc 1"),
    "vp9-mp4": (
        "vp9.mp4",
        f"{_V} {_A} -c:v libvpx-vp9 -cpu-used 8 -deadline realtime -c:a libopus",
    ),
    "av1": ("av1.mp4", f"{_V} {_A} -c:v libsvtav1 -preset 12 -c:a aac"),
    "rate-120": ("quick.mp4", f"-f lavfi -i testsrc2=s=160x90:r=120:d=1 {_X}"),
    "sound-8000-hz": (
        "phone.avi",
        f"{_V} -f lavfi -i sine=d=2:sample_rate=8000 -c:v mpeg4 -c:a pcm_u8",
    ),
    "sound-37800-hz": (
        "strange.mov",
        f"{_V} -f lavfi -i sine=d=2:sample_rate=37800 {_X} -c:a pcm_s16be",
    ),
    "one-frame-ts": ("one.ts", "-f lavfi -i testsrc2=s=160x90:r=25:d=0.04 " + _X),
    "m2ts": ("disc.m2ts", f"{_V} {_A} {_X} -c:a ac3 -mpegts_m2ts_mode 1"),
    "mxf": ("tape.mxf", f"{_V} {_A} -c:v mpeg2video -ar 48000"),
    "dv": ("tape.dv", "-f lavfi -i testsrc2=s=720x576:r=25:d=0.4 -c:v dvvideo -pix_fmt yuv420p"),
    "y4m": ("bare.y4m", f"{_V} -pix_fmt yuv420p"),
    "wav": ("bare.wav", f"{_A}"),
    "aiff": ("bare.aiff", f"{_A}"),
    "au": ("bare.au", f"{_A}"),
    "m4a-alac": ("alac.m4a", f"{_A} -c:a alac"),
    "sound-from-above": ("above.wav", f"{_A} -af aformat=channel_layouts=5.1.2"),
    "one-labelled-channel": ("left.mov", f"{_A} -af channelmap=0:FL -c:a pcm_s16le"),
    "ogg": ("old.ogg", f"{_A} -c:a libopus"),
}
REFUSED = {"nut": ("odd.nut", f"{_V} {_A} -c:v mpeg4 -c:a mp2")}
"""Valid files of a format in which damage cannot be detected: refused by name."""
