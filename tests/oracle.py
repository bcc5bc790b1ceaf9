"""The toy's world as one big Gaussian: what every task must give, computed without the toy's own algebra."""

from __future__ import annotations

import numpy as np
import torch

from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.grid import Grid
from cinecanvas.model import Model
from cinecanvas.models.toy import Toy, colour
from cinecanvas.sampler import Fill, fill, noise
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import Solver, dpm
from cinecanvas.stepcache import ALWAYS, StepCache

torch.set_num_threads(1)  # on tiny tensors threads only cost: 8 s for one test instead of 0.9 on a busy machine

Gaussian = tuple[np.ndarray, np.ndarray]  # mean (N,) and covariance (N, N) of the cells of one video, track by track


def blank(*, frames: int = 12, width: int = 1, sound: int = 0, closed: bool = False) -> Canvas:
    """One empty video of `frames` at 8 / s and `width` x 1 px, with `sound` cells spread over the same seconds."""
    tracks = {"video": Track.blank(Grid(frames=frames, height=1, width=width, fps=8), channels=3)}
    if sound:
        tracks["sound"] = Track.blank(Grid(frames=sound, height=1, width=1, fps=8 * sound / frames), channels=1)
    return Canvas(tracks, closed=closed)


def prior(toy: Toy, canvas: Canvas, text: str) -> Gaussian:
    """What the world looks like before anything is known."""
    mean, time, column = [], [], []
    for name, track in canvas.tracks.items():
        _, c, t, h, w = track.x.shape
        tint = colour(text) if name == "video" else (0.0,) * c
        for i, (channel, _, y, x) in enumerate(np.ndindex(c, t, h, w)):
            mean.append(tint[channel])
            time.append(track.times()[i // (h * w) % t])
            column.append(hash((name, channel, y, x)))
    apart = np.subtract.outer(time, time)
    length = max(t.grid.seconds for t in canvas.tracks.values())
    laps = np.arange(-200, 201) * length if canvas.closed else np.zeros(1)
    k = matern(apart[..., None] + laps, toy.span).sum(-1) / matern(laps, toy.span).sum()
    return np.array(mean), toy.std**2 * k * (toy.share + (1 - toy.share) * np.equal.outer(column, column))


def conditional(toy: Toy, canvas: Canvas, text: str) -> Gaussian:
    """The prior given the known cells of the canvas: mean + S_hk S_kk^-1 (x_k - mean_k), and the Schur complement."""
    mean, cov = prior(toy, canvas, text)
    x = flat({name: track.x for name, track in canvas.tracks.items()})[0]
    known = flat({k: keep.expand_as(canvas.tracks[k].x) for k, keep in canvas.known.items()})[0].astype(bool)
    gain = cov[:, known] @ np.linalg.inv(cov[np.ix_(known, known)])
    return mean + gain @ (x - mean)[known], cov - gain @ cov[known]


def sampled(
    model: Model,
    canvas: Canvas,
    schedule: Schedule,
    *,
    solver: Solver = dpm,
    text: str = "red",
    seed: int = 0,
    cache: StepCache = ALWAYS,
) -> Gaussian:
    """What the sampler draws, free of Monte Carlo error.

    The toy's flow is affine in its noise, x = mean + M eps with eps standard normal. So a regression on a few more
    videos than there are cells finds mean and M exactly, and the covariance is M M^T.
    """
    many = canvas.repeat(sum(t.x[0].numel() for t in canvas.tracks.values()) + 8)
    eps = flat({name: noise(track, seed=seed, name=name) for name, track in many.tracks.items()})
    x = flat(filled(model, many, schedule, solver=solver, text=text, seed=seed, cache=cache).z)
    basis = np.concatenate([np.ones((len(eps), 1)), eps], axis=1)
    fit, *_ = np.linalg.lstsq(basis, x, rcond=None)
    assert np.abs(basis @ fit - x).max() < 1e-3, "the flow is not affine in its noise"
    return fit[0], fit[1:].T @ fit[1:]


def filled(
    model: Model,
    canvas: Canvas,
    schedule: Schedule,
    *,
    solver: Solver = dpm,
    text: str = "red",
    seed: int = 0,
    cache: StepCache = ALWAYS,
) -> Fill:
    """The last Fill of a canvas whose videos all have the same prompt."""
    *_, last = fill(
        model, model.prepare(canvas, [text] * canvas.batch), schedule, seed=seed, solver=solver, cache=cache
    )
    return last


def error(got: Gaussian, wanted: Gaussian) -> float:
    """The largest difference of any cell's mean or standard deviation."""
    std = [np.sqrt(np.diag(cov).clip(0)) for _, cov in (got, wanted)]
    return float(max(np.abs(got[0] - wanted[0]).max(), np.abs(std[0] - std[1]).max()))


def draw(toy: Toy, canvas: Canvas, *, text: str = "red", seed: int = 0) -> Tensors:
    """One video of the world itself, like the canvas's tracks: material for known cells."""
    mean, cov = prior(toy, canvas, text)
    x = torch.from_numpy(np.random.default_rng(seed).multivariate_normal(mean, cov)).float()
    parts = x.split([t.x[0].numel() for t in canvas.tracks.values()])
    return {name: part.view(t.x.shape) for (name, t), part in zip(canvas.tracks.items(), parts, strict=True)}


def flat(tensors: Tensors) -> np.ndarray:
    """Tracks (B, C, T, H, W) to rows (B, N), float64."""
    return torch.cat([x.flatten(1) for x in tensors.values()], dim=1).double().numpy()


def matern(seconds: np.ndarray, span: float) -> np.ndarray:
    """Matern 3/2 (Rasmussen & Williams 2006, eq. 4.17)."""
    far = np.abs(seconds) * np.sqrt(3) / span
    return (1 + far) * np.exp(-far)
