"""Every refusal says three things: what was asked, what is possible, and what to do."""

from __future__ import annotations


class CinecanvasError(Exception):
    """The root of all our errors: one line for the user, an exit code for the shell."""

    exit_code = 2

    def __init__(self, asked: str, possible: str = "", do: str = "") -> None:
        """`asked`: what was wanted and failed; `possible`: what would work; `do`: the next step."""
        self.asked, self.possible, self.do = asked, possible, do
        super().__init__(" ".join(_sentence(part) for part in (asked, possible, do) if part))


class BadRequest(CinecanvasError):
    """The request itself makes no sense: an empty prompt, a negative duration, NaN pixels."""


class Unsupported(CinecanvasError):
    """The request makes sense, but not for this model; the message names what would serve."""


class BadMedia(CinecanvasError):
    """A file that cannot be read as the media it claims to be."""


class BadWeights(CinecanvasError):
    """Weights that are missing, truncated, or not those their Card names."""


class CannotWrite(CinecanvasError):
    """The result has nowhere to go: a missing folder, no permission, a full disk."""


class Cancelled(CinecanvasError):
    """Somebody stopped the work; nothing half-written is left behind."""

    exit_code = 130


def _sentence(text: str) -> str:
    """One line without control characters, closed by a full stop."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else line + "."
