"""Schedule a child as batch work on Linux, so that its threads keep their cores longer.

By default the kernel takes a core from one of an encoder's threads as soon as another one wakes up.
Under SCHED_BATCH, with a long time slice, each runs until it has to wait: fewer switches, and fewer
threads that wait for one that was preempted. x264 gains 1 to 2 % of its wall time (docs/design.md),
other encoders neither gain nor lose. Programs with the default policy still get a core immediately.

The slice counts from Linux 6.12 on; older kernels ignore it.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from contextlib import suppress

_SLICE_NS = 100_000_000
"""The longest that Linux allows."""
_SYSCALLS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of sched_setattr, for which C libraries before glibc 2.41 have no function."""


class _Attributes(ctypes.Structure):
    """struct sched_attr of sched_setattr(2), in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def _find_syscall() -> Callable[[_Attributes], int] | None:
    """Return a function that sets the attributes of its calling thread; None: unavailable."""
    number = _SYSCALLS.get(os.uname().machine)
    if number is None or os.uname().sysname != "Linux" or struct.calcsize("P") != 8:
        return None
    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.POINTER(_Attributes), ctypes.c_uint]

    def set_attributes(attributes: _Attributes) -> int:
        return int(syscall(number, 0, ctypes.byref(attributes), 0))

    return set_attributes


_SYSCALL = _find_syscall()


def become_batch() -> None:
    """Make this process batch work if it has the default policy; for a child before its exec.

    On a system that forbids it, or does not know it, only the gain in time is lost.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if _SYSCALL is not None:
            size = ctypes.sizeof(_Attributes)
            _SYSCALL(_Attributes(size, os.SCHED_BATCH, 0, os.nice(0), 0, _SLICE_NS, 0, 0))
