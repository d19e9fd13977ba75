"""Build ffmpeg's input arguments, so that no file name or playlist can mislead it.

- A local file is always `file:` and an absolute path: a name such as `-x`, `%d` or `concat:a|b` is
  then only a name.
- The protocols are a whitelist, and so are the containers: playlists (HLS, DASH, concat, SDP,
  image patterns), which name *other* files, are not among them.
"""

from pathlib import Path

LOCAL_PROTOCOLS = "file"
REMOTE_PROTOCOLS = "http,tcp"
"""To the engine's own relay, which alone connects to other machines."""
STDIN = "pipe:0"
CHECKSUMS = "crccheck"
"""Decoders check the checksums inside frames (AC-3, FLAC, MP3) only with this option."""

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,avi,flv,live_flv,mpeg,asf,ogg,mxf,dv,"
    "rm,wtv,ivf,obu,av1,h264,hevc,vvc,m4v,mpegvideo,h261,h263,vc1,dirac,yuv4mpegpipe,gif,apng,"
    "wav,w64,rf64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr,ape,wv,tta,tak,"
    "mpc,mpc8,swf,smk,bink,roq,vivo,film_cpk,cavsvideo,nuv,nsv,thp,xmv,bmv,mtv"
)
"""Names of ffmpeg's demuxers for real containers and elementary streams. Not NUT, VOC, and
bare DTS and TrueHD, whose demuxers skip damage silently; nor GXF, whose demuxer always reports an
error at the end."""


def file_url(path: Path) -> str:
    """Return the name under which ffmpeg reads the local file `path`."""
    return f"file:{path.absolute()}"


def is_remote(url: str) -> bool:
    """Whether ffmpeg would read it over the network."""
    return url.startswith(("http://", "https://"))


def read_arguments(url: str, formats: str | None = None) -> list[str]:
    """Return the arguments that open `url` for reading.

    Args:
        url: from `file_url`, the URL of a `Relay`, or `STDIN`.
        formats: the only demuxers allowed; default: `CONTAINERS`.
    """
    protocols = REMOTE_PROTOCOLS if is_remote(url) else LOCAL_PROTOCOLS
    if url == STDIN:
        protocols = "pipe"
    whitelist = ["-protocol_whitelist", protocols, "-format_whitelist", formats or CONTAINERS]
    # The environment's proxy is for other machines, not for the engine's own relay.
    proxy = ["-http_proxy", ""] if is_remote(url) else []
    return [*whitelist, *proxy, "-err_detect", CHECKSUMS, "-i", url]
