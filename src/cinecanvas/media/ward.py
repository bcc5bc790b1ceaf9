"""The child that a warden keeps: it opens what strangers brought, and can do little else.

`python -m cinecanvas.media.ward LIMITS` reads a job a line and answers it, until its input ends or its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cinecanvas.errors import BadMedia, CinecanvasError
from cinecanvas.media.destination import shown_name
from cinecanvas.media.fence import fence
from cinecanvas.media.warden import Answer, Job, Limits, Look, Mask, Refusal, Spritesheet, Thumbnail

_MOST_KEPT = 512 << 20  # bytes; a child that has read nothing large holds 100 MB
_THREADS = 4  # that FFmpeg decodes with


def main() -> None:
    """Answer jobs on stdin, on stdout."""
    limits = Limits.model_validate_json(sys.argv[1])
    out = _own_output()
    _warm()
    fence()  # before there is another thread: it holds for this one and those to come
    _limit(limits)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    _say(out, b"\n")
    for line in sys.stdin.buffer:
        job = Job.model_validate_json(line)
        _allow(job.seconds)
        answer, picture = done(job)
        if _grown():
            answer = answer.model_copy(update={"spent": True})
        _say(out, answer.model_dump_json().encode() + b"\n" + picture)


def done(job: Job) -> tuple[Answer, bytes]:
    """What comes of a job; what nobody foresaw is told without its own words, for they may hold addresses and paths."""
    try:
        return _done(job)
    except CinecanvasError as error:
        told = Refusal(error=type(error).__name__, asked=error.asked, possible=error.possible, do=error.do)
        return Answer(refusal=told, spent=isinstance(error.__cause__, MemoryError)), b""
    except Exception as error:
        fails = "needs more memory than there is" if isinstance(error, MemoryError) else "cannot be read"
        asked = f"{shown_name(Path(job.file).name)} {fails}"
        return Answer(refusal=Refusal(error=BadMedia.__name__, asked=asked, do="Shrink or convert it"), spent=True), b""


def _done(job: Job) -> tuple[Answer, bytes]:
    from cinecanvas.media import intake, stills

    file, wish = Path(job.file), job.wish
    if isinstance(wish, Look):
        seen = intake.look(file, name=wish.name)
        if wish.seconds:
            intake.look_through(file, seen, seconds=wish.seconds)
        return Answer(seen=seen.model_copy(update={"metadata": {}})), b""
    if isinstance(wish, Thumbnail):
        picture = stills.thumbnail(file, kind=wish.kind, side=wish.side, second=wish.second)
    elif isinstance(wish, Spritesheet):
        picture = stills.spritesheet(file, kind=wish.kind, columns=wish.columns, rows=wish.rows, side=wish.side)
    elif isinstance(wish, Mask):
        picture = stills.mask(file)
    else:
        picture = stills.still(file, last=wish.last)
    return Answer(bytes=len(picture)), picture


def _own_output() -> BinaryIO:
    """The pipe to the parent, and nothing for a library that prints to write on."""
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return out


def _say(out: BinaryIO, data: bytes) -> None:
    out.write(data)
    out.flush()


def _leave_with(parent: int) -> None:
    """A child in the middle of a film does not hear that its input has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _limit(limits: Limits) -> None:
    """Memory, open files, and no file that grows; a system without such limits does without."""
    try:
        import resource
    except ImportError:
        return
    for name, most in (("AS", limits.memory), ("NOFILE", 64), ("FSIZE", 0), ("CORE", 0)):
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _allow(seconds: float) -> None:
    """So much time of the processor from now on, should nobody be there to look at the clock."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime + _THREADS * seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _grown() -> bool:
    """Whether a large file has been here: its memory does not all come back while the process lives."""
    with suppress(OSError, StopIteration, ValueError):  # Linux; its ru_maxrss begins with what the parent held
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) << 10 > _MOST_KEPT
    try:
        import resource
    except ImportError:
        return False
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > _MOST_KEPT


def _warm() -> None:
    """Load all that the first job needs, while Python may still keep what it has compiled."""
    import av  # noqa: F401
    from PIL import Image

    from cinecanvas.media import stills  # noqa: F401

    Image.init()


if __name__ == "__main__":
    main()
