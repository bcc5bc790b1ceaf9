"""Settings say where things live on this machine: one frozen object, read from the environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import BadRequest
from cinecanvas.runtime.placement import Precision

_OFFLINE = ("CINECANVAS_OFFLINE", "HF_HUB_OFFLINE")


class Settings(BaseModel):
    """cache: what may be lost; data: what may not; store: assets; database: jobs; models: public weights."""

    model_config = ConfigDict(frozen=True)

    cache: Path
    data: Path
    store: Path
    database: str  # a URL
    models: Path  # public weights, a folder each
    threads: int = 0  # 0 leaves them to torch
    device: str = "auto"  # where public models work: auto, cpu, cuda, cuda:1
    precision: str = "auto"  # in which they work
    offline: bool = False  # nothing is fetched
    debug: bool = False  # show tracebacks


def settings(env: Mapping[str, str] | None = None) -> Settings:
    """CINECANVAS_HOME holds everything if it is set; else each platform's own places, with XDG's first."""
    env = os.environ if env is None else env
    home = env.get("CINECANVAS_HOME", "")
    cache, data = (Path(home, "cache"), Path(home, "data")) if home else _places(env)
    return Settings(
        cache=cache,
        data=data,
        store=data / "store",
        database=env.get("CINECANVAS_DATABASE") or f"sqlite:///{(data / 'jobs.sqlite').absolute()}",
        models=Path(env.get("CINECANVAS_MODELS") or data / "models"),
        threads=_threads(env.get("CINECANVAS_THREADS", "0")),
        device=env.get("CINECANVAS_DEVICE") or "auto",
        precision=_precision(env.get("CINECANVAS_PRECISION") or "auto"),
        offline=any(env.get(name, "").lower() not in ("", "0", "no", "off", "false") for name in _OFFLINE),
        debug=env.get("CINECANVAS_DEBUG", "") not in ("", "0"),
    )


def _places(env: Mapping[str, str]) -> tuple[Path, Path]:
    """(cache, data) of this platform."""
    user = _user()
    if sys.platform == "darwin":
        cache, data = user / "Library" / "Caches", user / "Library" / "Application Support"
    elif sys.platform == "win32":
        cache = data = Path(env.get("LOCALAPPDATA") or user / "AppData" / "Local")
    else:
        cache, data = user / ".cache", user / ".local" / "share"
    return (
        Path(env.get("XDG_CACHE_HOME") or cache) / "cinecanvas",
        Path(env.get("XDG_DATA_HOME") or data) / "cinecanvas",
    )


def _user() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user without a name
        return Path(tempfile.gettempdir())


def _precision(name: str) -> str:
    known = ("auto", *get_args(Precision))
    if name not in known:
        raise BadRequest(f"The precision {name[:20]!r} was asked", f"Possible are {', '.join(known)}")
    return name


def _threads(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 1024:
        raise BadRequest(f"CINECANVAS_THREADS is {text[:20]!r}", "It is a whole number from 0 (torch chooses) to 1024")
    return int(text)
