"""What CLIP's text encoders make of prompts, as the picture families read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from cinecanvas.models.checkpoint import Parts


class Reading(NamedTuple):
    """States of the last layer but one (B, 77, width), and the one vector that the encoder projects them to (B, C)."""

    states: Tensor
    pooled: Tensor


def read(parts: Parts, text: Sequence[str], *, number: str = "") -> Reading:
    """Prompts read by `tokenizer` and `text_encoder`, or by those with a number such as "_2"."""
    reader, encoder = parts.reader(f"tokenizer{number}"), parts.network(f"text_encoder{number}")
    words = reader(
        list(text), padding="max_length", max_length=reader.model_max_length, truncation=True, return_tensors="pt"
    )
    found = encoder(words["input_ids"].to(parts.device), output_hidden_states=True)
    return Reading(found.hidden_states[-2], found[0])
