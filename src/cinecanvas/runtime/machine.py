"""What this machine has: the device to work on, and how much memory is free there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cinecanvas.errors import BadRequest

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def device_of(asked: str) -> str:
    """The device that was asked for; of "auto" the GPU where there is one."""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = asked.partition(":")
    if kind == "cpu":
        return "cpu"
    there = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind != "cuda" or int(number or 0) >= there:
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise BadRequest(f"The device {asked!r} was asked", f"This machine has {have}", "Leave it at auto")
    return asked


def free(device: str) -> int:
    """Bytes that we could have on a device: of a GPU as its driver says, else of the machine or of the container."""
    if device.startswith("cuda"):
        import torch

        here = torch.device(device)
        return torch.cuda.mem_get_info(here)[0] + torch.cuda.memory_reserved(here)  # what we hold we can give back
    return min([_machine(), *(room for most, now in _CGROUPS if (room := _room(most, now)) is not None)])


def used() -> int:
    """Bytes of memory that this process has now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # no Linux: the most it ever had, which is near
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def lean() -> None:
    """Let the allocator give back what is freed: glibc keeps blocks of up to 32 MB, and they fragment.

    Measured on a Wan of 120 M parameters: a peak of 223 instead of 374 to 495 MB, for a tenth to a third more time.
    """
    if sys.platform == "linux":
        import ctypes

        with_threshold = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such call
        if with_threshold is not None:
            with_threshold(-3, 1 << 20)  # M_MMAP_THRESHOLD


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 8 << 30


def _room(most: str, now: str) -> int | None:
    """What a container may still take; None where there is no limit."""
    try:
        limit = Path(most).read_text().strip()
        return None if limit == "max" else max(0, int(limit) - int(Path(now).read_text()))
    except (OSError, ValueError):
        return None
