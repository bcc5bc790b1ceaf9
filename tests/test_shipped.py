"""The weights inside the package: whole, small, and they show what a sentence says."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cinecanvas
from cinecanvas.canvas import Canvas
from cinecanvas.eval.faithfulness import exam
from cinecanvas.eval.judge import judges
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.likeness import likeness, strangers
from cinecanvas.media.assets import Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import read, write
from cinecanvas.models import diorama
from cinecanvas.models.diorama import SHIPPED
from cinecanvas.models.weights import digest_of
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.world.captions import SLOTS
from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw

PACKAGE = Path(cinecanvas.__file__).parent


def test_the_shipped_weights_are_those_of_their_card() -> None:
    card = cinecanvas.cards()["diorama"]
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert {file.name: digest_of(file) for file in files} == card.digests
    assert sum(file.stat().st_size for file in files) == card.bytes <= 40_000_000
    assert card.scores and card.training and card.words


def test_held_out_sentences_are_shown() -> None:
    """A small paper of the exam; these bounds stand well below the Card's measured scores, chance is 1/4 and less."""
    sittings = list(exam(cinecanvas.load("diorama"), judges(), prompts=16, quality="draft"))
    right = torch.cat([s.generated == s.wanted for s in sittings]).float().mean(0)
    share = dict(zip(SLOTS, right.tolist(), strict=True))
    assert share["floor"] >= 0.7 and share["sky"] >= 0.7 and share["colour"] >= 0.6, share
    assert share["shape"] >= 0.5 and share["motion"] >= 0.5 and share["camera"] >= 0.5, share


def test_a_known_first_frame_stays_and_the_rest_follows_it() -> None:
    model = guided(cinecanvas.load("diorama"), 1.5)
    pixels = render([draw(1_000_000_123, LEVELS["first"])], frames=17, height=64, width=64, fps=8).rgb
    rgb = pixels.movedim(-1, 1).float() / 127.5 - 1
    canvas = Canvas.blank(Grid(frames=17, height=64, width=64, fps=8))
    cond = model.prepare(canvas.place("video", rgb[:, :, :1]), [""])
    *_, last = fill(model, cond, full(6, shift=2.0), seed=0)
    assert torch.equal(last.z["video"][:, :, 0], cond.canvas.tracks["video"].x[:, :, 0])
    frames = torch.cat([torch.as_tensor(f.rgb) for f in model.decode(last.z)]).float()
    other = render([draw(1_000_000_124, LEVELS["first"])], frames=1, height=64, width=64, fps=8).rgb[0, 0].float()
    first = pixels[0, 0].float()
    assert (frames[0] - first).abs().mean() < 8
    assert (frames[8] - first).abs().mean() < (frames[8] - other).abs().mean()


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damaged_weights_are_one_line_and_exit_2(harm: str, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "cinecanvas", ignore=shutil.ignore_patterns("__pycache__"))
    (shard, *_) = sorted((tmp_path / "cinecanvas/models/shipped/diorama").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink() if harm == "gone" else shard.write_bytes(data[: len(data) // 3] if harm == "cut" else data)
    program = "import sys; from cinecanvas.cli import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", program, "generate", "a red ball", "-o", str(tmp_path / "a.mp4")],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "CINECANVAS_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2 and not (tmp_path / "a.mp4").exists()
    message = run.stderr.strip().splitlines()[-1]
    assert "weights" in message and str(tmp_path) not in message and "Traceback" not in run.stderr


def test_a_picture_of_another_world_is_told_from_those_of_its_own(tmp_path: Path) -> None:
    model, store = diorama.load(SHIPPED), Store.at(tmp_path / "store")
    model.card = model.card.model_copy(update={"shows": 28.0})
    grain = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    own = render([draw(1_000_000_123, LEVELS["first"])], frames=1, height=64, width=64, fps=8).rgb[0, 0].numpy()
    told = []
    for picture in (own, grain):
        write([picture], tmp_path / "a.png", fps=1)
        still = take(store, tmp_path / "a.png")
        told.append(list(strangers(model, [still.digest], store.path, size=(64, 64))))
    assert not told[0] and "is not of the world of diorama" in told[1][0]
    assert likeness(cinecanvas.load("toy"), grain[:16, :16]) == math.inf  # the toy's latents are pixels


def test_what_is_not_retaken_is_the_same_picture_to_the_bit_before_and_after(tmp_path: Path) -> None:
    """The decoder remembers the group before, and still nothing of a retake shows in the groups that follow it."""
    store, truth = Store.at(tmp_path / "store"), draw(1_000_003_001, LEVELS["first"])
    write(render([truth], frames=33, height=64, width=64, fps=8).rgb[0].numpy(), tmp_path / "a.mp4", fps=8)
    clip, films = take(store, tmp_path / "a.mp4"), []
    for seed in (1, 2):
        out = f"{tmp_path}/{seed}/"
        size = {"width": 64, "height": 64}
        request = cinecanvas.retake(
            clip, "a red ball on grass", start=9 / 8, end=17 / 8, seed=seed, quality="draft", **size
        )
        list(cinecanvas.generate(request, out=out, store=store))
        films.append(np.stack(list(read(out))))
    same = [np.array_equal(a, b) for a, b in zip(*films, strict=True)]
    assert same == [True] * 9 + [False] * 8 + [True] * 16
    rgb = torch.as_tensor(np.stack(list(read(store.path(clip.digest))))).movedim(-1, 0)[None] / 127.5 - 1
    model = diorama.load(SHIPPED)
    whole = np.concatenate([f.rgb for f in model.decode({"video": model.autoencoder.encode(rgb)})])
    assert np.array_equal(films[0][17:], whole[17:])
