"""The toy: its denoiser is the exact posterior mean of one Gaussian world."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from oracle import blank, flat, prior

from cinecanvas.canvas import Canvas, Track
from cinecanvas.grid import Grid
from cinecanvas.model import Model
from cinecanvas.models.toy import CARD, Toy, colour, kernel, register
from cinecanvas.runtime.placement import Placement


@pytest.mark.parametrize("closed", [False, True])
def test_denoise_is_the_posterior_mean_whatever_the_noise_of_each_cell(closed: bool) -> None:
    toy, canvas = Toy(), blank(frames=5, width=2, sound=10, closed=closed).repeat(3)
    source = torch.Generator().manual_seed(0)
    z = {k: torch.randn(t.x.shape, generator=source) for k, t in canvas.tracks.items()}
    # thirds: known cells, pure noise, and anything between, in any pattern
    draws = {k: torch.rand(t.keep.shape, generator=source) * 3 - 1 for k, t in canvas.tracks.items()}
    sigma = {k: draw.clamp(0, 1) for k, draw in draws.items()}
    got = flat(toy.denoise(z, sigma, toy.prepare(canvas, ["red", "a fox", ""])))
    for b, text in enumerate(["red", "a fox", ""]):
        mean, cov = prior(toy, canvas, text)
        s = flat({k: sigma[k].expand_as(z[k]) for k in z})[b]
        a = 1 - s
        gain = cov * a @ np.linalg.inv(cov * np.outer(a, a) + np.diag(s**2))
        assert got[b] == pytest.approx(mean + gain @ (flat(z)[b] - a * mean), abs=1e-6)


def test_a_closed_axis_has_no_seam() -> None:
    times = torch.arange(16, dtype=torch.float64) / 8
    k = kernel(times, span=0.5, loop=2.0)
    assert k[0, 15] == pytest.approx(float(k[0, 1]))
    assert torch.linalg.eigvalsh(k).min() > 0


def test_prompts_move_the_mean() -> None:
    assert colour("A RED ball") == (0.6, -0.6, -0.6)
    assert colour("red and green") == pytest.approx((0, 0, -0.6))
    assert colour("") == (0, 0, 0)
    assert colour("a fox") != colour("a dog")


def test_decode_gives_known_pixels_back_and_all_the_sound_in_order() -> None:
    rgb = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8)
    sound = torch.rand(1, 2, 7, 3, 1)
    frames = list(Toy().decode({"video": rgb.permute(3, 0, 1, 2)[None] / 127.5 - 1, "sound": sound}))
    assert np.array_equal(np.concatenate([frame.rgb for frame in frames]), rgb.numpy())
    joined = np.concatenate([frame.sound for frame in frames if frame.sound is not None])
    assert np.array_equal(joined, sound[0, ..., 0].flatten(1).T.numpy())


def test_it_registers_as_a_model_whose_sizes_it_can_fill() -> None:
    (card,), load, _ = register()
    model = load(card, None, Placement())
    assert card is CARD and isinstance(model, Model) and model.card is card
    for width, height in card.sizes:
        canvas = Canvas({"video": Track.blank(Grid(frames=2, height=height, width=width, fps=8), channels=3)})
        z = {"video": canvas.tracks["video"].x}
        x0 = model.denoise(z, {"video": torch.ones(1, 1, 2, height, width)}, model.prepare(canvas, ["red"]))
        assert x0["video"].mean((0, 2, 3, 4)).tolist() == pytest.approx(colour("red"))


def test_its_card_is_read_without_torch() -> None:
    code = "import sys; from cinecanvas.models.toy import register; register(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
