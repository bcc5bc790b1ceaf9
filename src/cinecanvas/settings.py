"""Settings say where things live on this machine: one frozen object, read from the environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, SecretStr

from cinecanvas.errors import BadRequest
from cinecanvas.runtime.placement import Precision

MOST_ENHANCE_SECONDS = 240.0  # less than a worker may be silent
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
    enhance_url: str = ""  # of a language model that enhances prompts, in OpenAI's terms; "": there is none
    enhance_model: str = ""  # its name there
    enhance_key: SecretStr = SecretStr("")  # the bearer that it asks for
    enhance_seconds: float = 20.0  # that one answer may take


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
        enhance_url=env.get("CINECANVAS_ENHANCE_URL", ""),
        enhance_model=env.get("CINECANVAS_ENHANCE_MODEL", ""),
        enhance_key=_bearer(env.get("CINECANVAS_ENHANCE_KEY", "")),
        enhance_seconds=_seconds(env.get("CINECANVAS_ENHANCE_SECONDS") or "20"),
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


def _bearer(key: str) -> SecretStr:
    """A key as a header takes it; what is wrong with it is said without it."""
    if not all("!" <= c <= "~" for c in key):
        raise BadRequest("CINECANVAS_ENHANCE_KEY holds spaces, or characters that no key has", do="Set it anew")
    return SecretStr(key)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_ENHANCE_SECONDS:
        possible = f"It is more than 0 and at most {MOST_ENHANCE_SECONDS:g} s"
        raise BadRequest(f"CINECANVAS_ENHANCE_SECONDS is {text[:20]!r}", possible)
    return seconds
