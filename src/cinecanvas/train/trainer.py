"""The training run: render, fit the code, learn stills, learn clips, export; every phase resumes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from cinecanvas.errors import BadRequest
from cinecanvas.models import diorama
from cinecanvas.models.autoencoder import principal_components, to_cells
from cinecanvas.models.dit import DiT
from cinecanvas.models.text import TextEncoder
from cinecanvas.train import data, holes
from cinecanvas.train.decoder import filmed, learn_decoder, noisy
from cinecanvas.train.losses import flow_loss
from cinecanvas.train.optim import cooled
from cinecanvas.train.recipes import RECIPES, Bucket
from cinecanvas.train.remix import recycled
from cinecanvas.train.run import (
    SAVE_EVERY,
    Progress,
    Run,
    adopt_code,
    checkpoint,
    family_of,
    pixel_path,
    save_code,
    start,
)
from cinecanvas.train.validate import sample_sheet, validate

LOOK_EVERY = 300.0  # s between validations with a sample sheet
RECYCLE_AFTER = 3000  # steps: before, a network's films are nothing to go on from


def train(
    preset: str, *, minutes: float, out: Path, resume: bool = False, origin: Path | None = None
) -> Iterator[Progress]:
    """Run for `minutes` of wall time and export into out/export; `resume` goes on where the folder's run stopped.

    A fresh run may begin with the weights of `origin`, the folder of an export, and goes straight to clips.

    All the time that is left after the phases before goes to clips. Closing the generator saves a checkpoint first.
    """
    if preset not in RECIPES:
        raise BadRequest(f"There is no preset {preset!r}", f"Possible are {', '.join(RECIPES)}")
    if not 0.2 <= minutes <= 100_000:
        raise BadRequest(f"{minutes} minutes were asked for", "A run takes from 0.2 minutes to 100000")
    begun = time.monotonic()
    run = start(preset, minutes, out, resume=resume, origin=origin)
    polish = min(run.recipe.polish_minutes, 0.2 * minutes)
    deadline = begun + 60 * (minutes - polish)
    run.spent.pop("polish", None)  # it follows every call's clips
    try:
        yield from prepare_code(run)
        yield from render_bank(run, still=True)
        yield from learn(run, "stills", limit=60 * run.recipe.stills_minutes, deadline=deadline)
        wear = noisy(run.dit.variance, run.generator)
        yield from learn_decoder(run, "decoder", wear, minutes=run.recipe.code_minutes, rate=8e-4)
        yield from render_bank(run, still=False)
        yield from learn(run, "clips", limit=float("inf"), deadline=deadline)
        yield from learn_decoder(run, "polish", filmed(family_of(run), run.generator), minutes=polish, rate=4e-4)
    finally:
        checkpoint(run)
    family = export(run, minutes)
    yield Progress("exported", 1.0, 0.0, run.optimizer.steps, note=f"{family.card.bytes / 1e6:.1f} MB")


def prepare_code(run: Run) -> Iterator[Progress]:
    """Render the clips whose pixels are kept; unless there is a code, fit the principal components on their cells."""
    buckets = run.recipe.buckets
    cells = []
    for index, bucket in enumerate(buckets):
        wanted = max(1, round(run.recipe.code_clips * (bucket.share if bucket.frames > 1 else 0.2) / data.CHUNK))
        for chunk in range(min(wanted, data.chunks(bucket))):
            path = pixel_path(run, bucket, chunk)
            if not path.exists():
                _, seen = data.pictures(data.seeds_of(bucket, chunk, run.recipe), bucket, run.recipe)
                data.store(path, {"pixels": seen.rgb.cpu()})
            rgb = data.to_rgb(load_file(path)["pixels"])
            found = to_cells(rgb, run.recipe.code.strides).flatten(0, 3)
            cells.append(found[torch.randperm(len(found))[: 6000 if bucket.frames > 1 else 1000]])
            yield Progress("pixels", (index + 1) / len(buckets), 0.0)
    if (run.folder / "code.safetensors").exists():
        return
    mean, basis, deviation = principal_components(torch.cat(cells), run.recipe.code.channels)
    # latents keep half of the spectrum's slope (std^0.5), so strong components speak first; their mean variance is 1
    scale = deviation.sqrt() * deviation.mean().sqrt()
    variance = (deviation / scale) ** 2
    run.code.mean.copy_(mean)
    run.code.basis.copy_(basis)
    run.code.scale.copy_(scale)
    adopt_code(run, {**run.code.state_dict(), "variance": variance})
    save_code(run)
    yield Progress(
        "code",
        1.0,
        0.0,
        note=f"{run.recipe.code.channels} components, variance {variance[0]:.1f} .. {variance[-1]:.2f}",
    )


def render_bank(run: Run, *, still: bool) -> Iterator[Progress]:
    """Fill the bank's stills or clips."""
    buckets = [b for b in run.recipe.buckets if (b.frames == 1) == still]
    total = sum(data.chunks(b) for b in buckets)
    done, begun, fresh = 0, time.monotonic(), 0
    for bucket in buckets:
        for chunk in range(data.chunks(bucket)):
            fresh += data.fill_chunk(run.folder, bucket, chunk, run.recipe, run.code, run.text)
            done += 1
            rate = fresh * data.CHUNK / (time.monotonic() - begun)
            eta = (total - done) * (time.monotonic() - begun) / max(1, fresh)
            yield Progress(f"render {bucket.name}", done / total, eta, rate=rate)


def learn(run: Run, phase: str, *, limit: float, deadline: float) -> Iterator[Progress]:
    """The transformer's loop for one phase: at most `limit` s of it over all calls, and not beyond the deadline."""
    begun = time.monotonic()
    before = run.spent.get(phase, 0.0)
    length = min(limit - before, deadline - begun)
    if length <= 0:
        return
    buckets = [b for b in run.recipe.buckets if phase == "clips" or b.frames == 1]
    bank = {b.name: data.read_bank(run.folder, b) for b in buckets}
    forward = compiled_forward(run)
    pieces = data.piece_table(run.text).to(run.recipe.device)
    late = [b for b in buckets if b.late and run.optimizer.steps > RECYCLE_AFTER]
    histories = {b.name: recycled(run, b, bank[b.name], pieces) for b in late}
    picker = random.Random(run.optimizer.steps)
    saved = looked = begun
    seen, smooth, clock, first = 0, float("nan"), begun, run.optimizer.steps
    while (now := time.monotonic()) - begun < length:
        bucket = picker.choices(buckets, [b.share for b in buckets])[0]
        warm = min(1.0, (run.optimizer.steps - first + 1) / run.recipe.warmup)
        # stills are a beginning: only the run's last phase cools down
        cooling = cooled((now - begun) / length, decay=run.recipe.decay if phase == "clips" else 0.0)
        history = histories.get(bucket.name)
        loss = train_step(run, forward, bank[bucket.name], bucket, pieces, warm * cooling, history=history)
        run.spent[phase] = before + time.monotonic() - begun
        seen += bucket.batch
        if run.optimizer.steps % 10 == 0:
            value = float(loss)
            smooth = value if smooth != smooth else 0.9 * smooth + 0.1 * value
            rate, seen, clock = seen / (time.monotonic() - clock), 0, time.monotonic()
            yield Progress(phase, (now - begun) / length, length - (now - begun), run.optimizer.steps, smooth, rate)
        if now - saved > SAVE_EVERY:
            checkpoint(run)
            saved = now
        if now - looked > LOOK_EVERY:
            yield Progress(
                phase, (now - begun) / length, length - (now - begun), run.optimizer.steps, smooth, note=look(run)
            )
            looked = clock = time.monotonic()
            seen = 0
    checkpoint(run)
    yield Progress(phase, 1.0, 0.0, run.optimizer.steps, smooth, note=look(run))


def train_step(
    run: Run,
    forward: Forward,
    bank: data.Examples,
    bucket: Bucket,
    pieces: Tensor,
    rate: float,
    *,
    history: Tensor | None = None,
) -> Tensor:
    """One batch of canvases with holes: noise, predict, score the holes, step. Returns the loss.

    history: like the bank's latents, the network's own; it stands where cells are known, in half of the examples.
    """
    recipe, g = run.recipe, run.generator
    rows = torch.randint(len(bank.latents), (bucket.batch,), generator=g)
    first = 1 if bucket.late else 0
    x, facts = (t[rows, :, first:].to(recipe.device).float() for t in (bank.latents, bank.facts))
    form = torch.randint(data.FORMS, (bucket.batch,), generator=g)
    silent = torch.rand(bucket.batch, 1, generator=g) < recipe.unconditional
    ids, said = (t[rows, form].long().masked_fill(silent, -1) for t in (bank.ids, bank.said))
    forget = torch.rand(ids.shape, generator=g) < recipe.forget
    still = bucket.frames == 1
    noise = holes.draw(
        bucket.batch,
        x.shape[2:],
        mean=recipe.noise_still if still else recipe.noise_clip,
        spread=recipe.noise_spread,
        generator=g,
    )
    sigma, hole = noise.sigma.to(recipe.device), noise.hole.to(recipe.device)
    given = x
    if history is not None:
        own = torch.rand(bucket.batch, 1, 1, 1, 1, generator=g).to(recipe.device) < 0.5
        given = torch.where(own & (hole == 0), history[rows, :, first:].to(x), x)
    z = (1 - sigma) * given + sigma * torch.randn(x.shape, generator=g).to(recipe.device)
    ids, forget = ids.to(recipe.device), forget.to(recipe.device)
    # an absent word has no pieces either
    gathered = pieces[ids.clamp(min=0)].masked_fill((ids < 0)[..., None], 0)
    x0, middle, sentence = forward(z, sigma, ids, gathered, forget, first)
    loss = flow_loss(x0, x, sigma, hole)
    lesson = run.oracle.loss(middle, facts, hole, sentence, said.to(recipe.device))
    # it falls with the rate: the truth shows the way, the pictures have the last word
    (loss + recipe.oracle * min(1.0, rate) * lesson).backward()
    run.optimizer.step(rate)
    return loss.detach()


class Forward:
    """Words and noisy cells to x0, the transformer's middle states and the sentence's own."""

    def __init__(self, text: TextEncoder, dit: DiT) -> None:
        self.text, self.dit = text, dit

    def __call__(
        self, z: Tensor, sigma: Tensor, ids: Tensor, pieces: Tensor, forget: Tensor, start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        states, padding = self.text(ids, pieces, forget=forget)
        return *self.dit.traced(z, sigma, self.dit.read(states, padding), start=start), states[:, 0]


def compiled_forward(run: Run) -> Forward:
    """Compile per block, never the whole: the whole did not finish within five minutes."""
    import shutil

    if run.recipe.compiled and (shutil.which("c++") or shutil.which("g++")):
        torch._dynamo.config.recompile_limit = 64
        for block in run.dit.blocks:
            block.compile(dynamic=False)
    return Forward(run.text, run.dit)


def look(run: Run) -> str:
    """Validate the averaged weights and draw a sample sheet; the figures as one line, and appended to the journal."""
    family = family_of(run)
    figures = validate(family, run.recipe, run.folder)
    sample_sheet(family, run.recipe, run.folder / "sheets" / f"{run.optimizer.steps:06d}.png")
    minutes = {phase: round(seconds / 60, 1) for phase, seconds in run.spent.items()}
    with (run.folder / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({"step": run.optimizer.steps, "minutes": minutes, **figures}) + "\n")
    return " ".join(f"{name} {value:.4f}" for name, value in figures.items())


def export(run: Run, minutes: float) -> diorama.Diorama:
    """Shards and Card of the averaged weights into out/export."""
    family = family_of(run)
    total = sum(run.spent.values()) / 60
    training = (
        f"cine train diorama --preset {run.recipe.preset} --minutes {minutes:g}; "
        f"{total:.0f} minutes of training on {run.recipe.device} in all, {run.optimizer.steps} steps"
    )
    family.card = diorama.save(run.folder / "export", family, family.card.model_copy(update={"training": training}))
    return family
