"""What a process that reads pictures can do without: on Linux the system takes it from it, for good.

No network, no other program, no hold on another process, no file written, moved or removed. It is a list for seccomp,
which needs no rights and works in containers; whatever is on it answers "not permitted". Elsewhere there is no fence.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

# Numbers of system calls, in one order for both: socket, execve, execveat, ptrace, process_vm_readv, process_vm_writev,
# kill, pidfd_send_signal, pidfd_open, pidfd_getfd, io_uring_setup, bpf, unshare, setns, userfaultfd, perf_event_open,
# keyctl, openat2, unlinkat, renameat, renameat2, truncate, mkdirat, linkat, symlinkat, fchmodat.
_DENIED = {
    "x86_64": (
        *(41, 59, 322, 101, 310, 311, 62, 424, 434, 438, 425, 321, 272, 308, 323, 298),
        *(250, 437, 263, 264, 316, 76, 258, 265, 266, 268),
        *(87, 82, 83, 84, 85, 86, 88, 90),  # unlink, rename, mkdir, rmdir, creat, link, symlink, chmod
    ),
    "aarch64": (
        *(198, 221, 281, 117, 270, 271, 129, 424, 434, 438, 425, 280, 97, 268, 282, 241),
        *(219, 437, 35, 38, 276, 45, 34, 37, 36, 53),
    ),
}
_OPENS = {"x86_64": ((257, 2), (2, 1)), "aarch64": ((56, 2),)}  # openat and open, and which argument holds the flags
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NO_NEW_RIGHTS, _SECCOMP, _FILTER = 38, 22, 2  # for prctl


def fence() -> bool:
    """Put this thread, and those it starts, behind the fence; False where there is none."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _DENIED or sys.maxsize < 1 << 32:
        return False
    steps = _steps(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    control = ctypes.CDLL(None).prctl
    control.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if control(_NO_NEW_RIGHTS, 1, 0, 0, 0):
        return False
    return not control(_SECCOMP, _FILTER, ctypes.addressof(program), 0, 0)


def _steps(machine: str) -> Sequence[tuple[int, int, int, int]]:
    """The filter: (code, steps to skip if so, steps to skip if not, value); it sees number, machine and arguments."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _MACHINES[machine]),
        (_RETURN, 0, 0, _KILL),  # another machine's numbers
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),  # x32's numbers
        (_RETURN, 0, 0, _DENY),
    ]
    for number in _DENIED[machine]:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    for number, argument in _OPENS[machine]:
        steps += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, 16 + 8 * argument),
            (_ANY_BIT, 0, 1, writing),
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]
