"""Choose what of the engine's environment its child processes get.

The rest may hold secrets, such as `DISTCONV_API_KEY`, or change what ffmpeg does (`FFREPORT`).
"""

from collections.abc import Mapping

NAMES = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "DISPLAY",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "FONTCONFIG_FILE",
        "FONTCONFIG_PATH",
    ]
)
"""Where programs, libraries and fonts are, and how text and time are written."""
PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "LIBVA_",
    "VDPAU_",
    "MFX_",
    "ONEVPL_",
    "MESA_",
    "VK_",
    "HIP_",
)
"""What drivers of hardware encoders read."""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a child process gets; pure."""
    return {
        name: value for name, value in environ.items() if name in NAMES or name.startswith(PREFIXES)
    }
