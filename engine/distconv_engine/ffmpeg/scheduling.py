"""Telling Linux that a child computes, and that nobody waits for its next millisecond.

By its usual rules the kernel takes a core from one of an encoder's threads as soon as another one
wakes up. As SCHED_BATCH, with a long time slice, each goes on until it has to wait: fewer switches, and
fewer threads that stand still because the one they wait for was put aside. x264 gains 1 to 2 % of
its wall time (docs/design.md), other encoders neither gain nor lose. Programs with the usual policy
still get a core at once.

The slice counts from Linux 6.12 on; older ones ignore it.
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
    """struct sched_attr of sched_setattr(2), as it was first."""

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
    """Return what sets the attributes of the thread that calls it; None: not here."""
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
    """Make this process batch work, if it has the usual policy; for a child before its program runs.

    A system that forbids it, or does not know it, loses nothing but time.
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
