"""cinecanvas: video generation you host yourself."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cinecanvas.canvas import Canvas as Canvas
    from cinecanvas.errors import CinecanvasError as CinecanvasError
    from cinecanvas.generate import generate as generate
    from cinecanvas.grid import Grid as Grid
    from cinecanvas.guidance import guided as guided
    from cinecanvas.media.assets import Store as Store
    from cinecanvas.media.intake import take as take
    from cinecanvas.model import Card as Card
    from cinecanvas.model import Model as Model
    from cinecanvas.models import cards as cards
    from cinecanvas.models import load as load
    from cinecanvas.plan import plan as plan
    from cinecanvas.request import Clip as Clip
    from cinecanvas.request import Request as Request
    from cinecanvas.request import animate as animate
    from cinecanvas.request import extend as extend
    from cinecanvas.request import inpaint as inpaint
    from cinecanvas.request import interpolate as interpolate
    from cinecanvas.request import join as join
    from cinecanvas.request import keyframes as keyframes
    from cinecanvas.request import loop as loop
    from cinecanvas.request import outpaint as outpaint
    from cinecanvas.request import remix as remix
    from cinecanvas.request import retake as retake
    from cinecanvas.request import text_to_image as text_to_image
    from cinecanvas.request import text_to_video as text_to_video
    from cinecanvas.request import upscale as upscale
    from cinecanvas.request import variations as variations
    from cinecanvas.sampler import fill as fill
    from cinecanvas.schedule import Schedule as Schedule

_HOMES = {  # each public name and the module that it lives in; torch comes only with those that need it
    "Canvas": "canvas",
    "Card": "model",
    "CinecanvasError": "errors",
    "Clip": "request",
    "Grid": "grid",
    "Model": "model",
    "Request": "request",
    "Schedule": "schedule",
    "Store": "media.assets",
    "animate": "request",
    "cards": "models",
    "extend": "request",
    "fill": "sampler",
    "generate": "generate",
    "guided": "guidance",
    "inpaint": "request",
    "interpolate": "request",
    "join": "request",
    "upscale": "request",
    "variations": "request",
    "keyframes": "request",
    "load": "models",
    "outpaint": "request",
    "loop": "request",
    "plan": "plan",
    "remix": "request",
    "retake": "request",
    "take": "media.intake",
    "text_to_image": "request",
    "text_to_video": "request",
}
__all__ = ["__version__", *_HOMES]


class _Package(ModuleType):
    """The package, whose functions generate and plan must not be hidden by the modules that they live in."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cinecanvas")
        except PackageNotFoundError:  # a source tree that was never installed
            return "0+source"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
