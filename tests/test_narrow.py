"""Weights in fewer bits stay what they were, as far as their bits go, and weigh what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity import grid_of, opened, ours, psnr
from tiny import wan
from torch import nn

from cinecanvas.canvas import Canvas
from cinecanvas.runtime.narrow import Narrow, narrowed
from cinecanvas.runtime.placement import Placement, Precision


@pytest.mark.parametrize(("precision", "bits", "error"), [("int8", 8, 0.006), ("float8", 8, 0.03), ("int4", 4, 0.12)])
def test_a_product_differs_by_what_its_bits_allow(precision: Precision, bits: int, error: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(200, 96).to(torch.bfloat16)
    narrow = Narrow(linear, precision)
    x = torch.randn(7, 200, dtype=torch.bfloat16)
    wanted, got = linear(x).float(), narrow(x).float()
    assert 1e-4 < float((got - wanted).norm() / wanted.norm()) < error
    assert narrow.packed.numel() * narrow.packed.element_size() * 8 <= 96 * 256 * bits
    assert narrow.weight.dtype == torch.bfloat16 and narrow.weight.numel() == 0


def test_only_what_is_large_and_not_kept_wide_becomes_narrow() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8), nn.Linear(64, 64).float(), nn.LayerNorm(64))
    network[0].to(torch.bfloat16), network[1].to(torch.bfloat16)
    kinds = [type(layer).__name__ for layer in narrowed(network, "int8")]
    assert kinds == ["Narrow", "Linear", "Linear", "LayerNorm"]


@pytest.mark.parametrize("precision", ["int8", "float8", "int4"])
def test_a_film_in_fewer_bits_is_nearly_the_same(tmp_path: Path, precision: Precision) -> None:
    folder = wan.save(tmp_path / "t2v", "t2v", heads=4, width=24)
    wide, narrow = (opened(folder, Placement(precision=p)) for p in ("bfloat16", precision))
    grid = grid_of(wide.card, frames=5, width=64, height=32)
    levels = (1.0, 0.7, 0.3, 0.0)
    assert psnr(ours(narrow, Canvas.blank(grid), levels), ours(wide, Canvas.blank(grid), levels)) > 25
