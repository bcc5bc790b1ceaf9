"""A prompt that was read before needs no text encoder, and gives the same states to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity import FLOAT32
from tiny import wan

from cinecanvas.model import Weights
from cinecanvas.models import prompts
from cinecanvas.models.checkpoint import Parts
from cinecanvas.settings import settings


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))
    return Parts.of(Weights(wan.save(tmp_path / "t2v", "t2v")), FLOAT32)


def read(parts: Parts, *text: str) -> tuple[torch.Tensor, list[str]]:
    """The states, and which prompts the encoder was asked for."""
    asked: list[str] = []

    def states(fresh: list[str]) -> dict[str, torch.Tensor]:
        asked.extend(fresh)
        return {"states": torch.stack([torch.full((2, 3), float(len(prompt))) for prompt in fresh])}

    found = prompts.remembered(parts, text, states, by=("tokenizer", "text_encoder"))  # type: ignore[arg-type]
    return found["states"], asked


def test_only_what_is_new_is_read_and_rows_keep_their_order(parts: Parts) -> None:
    assert read(parts, "fox", "a")[1] == ["fox", "a"]
    states, asked = read(parts, "a", "hound", "a", "fox")
    assert asked == ["hound"] and states[:, 0, 0].tolist() == [1, 5, 1, 3]


def test_other_encoders_or_a_damaged_file_are_read_again(parts: Parts) -> None:
    read(parts, "fox")
    (kept,) = (settings().cache / "prompts").glob("*.safetensors")
    kept.write_bytes(b"damaged")
    assert read(parts, "fox")[1] == ["fox"] and read(parts, "fox")[1] == []
    (parts.folder / "text_encoder" / "config.json").touch()
    assert read(parts, "fox")[1] == ["fox"]


def test_the_oldest_go_when_it_becomes_too_much(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MOST", 250)
    read(parts, "fox")
    read(parts, "hound")
    read(parts, "badger")
    assert read(parts, "badger")[1] == [] and read(parts, "fox")[1] == ["fox"]
