"""A run: everything that training holds in memory, and the same on disk, so that it can stop and go on at any step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cinecanvas.errors import BadRequest
from cinecanvas.models import diorama
from cinecanvas.models.autoencoder import Autoencoder
from cinecanvas.models.dit import DiT
from cinecanvas.models.text import TextEncoder
from cinecanvas.train import data
from cinecanvas.train.optim import Optimizer
from cinecanvas.train.oracle import Oracle
from cinecanvas.train.recipes import RECIPES, Bucket, Recipe
from cinecanvas.train.validate import describe
from cinecanvas.world.captions import vocabulary
from cinecanvas.world.scene import LEVELS

SAVE_EVERY = 90.0  # s between checkpoints


@dataclass(frozen=True)
class Progress:
    """One line of a run's life: where it is, how fast, and what is left (s)."""

    phase: str
    done: float  # of the phase, 0..1
    eta: float
    step: int = 0
    loss: float = float("nan")
    rate: float = 0.0  # examples per second
    note: str = ""


@dataclass
class Run:
    """All that a run holds; `folder` holds the same on disk."""

    recipe: Recipe
    folder: Path
    code: Autoencoder
    network: nn.ModuleDict
    optimizer: Optimizer
    code_optimizer: torch.optim.Optimizer
    generator: torch.Generator
    spent: dict[str, float] = field(default_factory=dict)  # s per phase, over all calls
    code_steps: int = 0

    @property
    def text(self) -> TextEncoder:
        part = self.network["text"]
        assert isinstance(part, TextEncoder)
        return part

    @property
    def dit(self) -> DiT:
        part = self.network["dit"]
        assert isinstance(part, DiT)
        return part

    @property
    def oracle(self) -> Oracle:
        part = self.network["oracle"]
        assert isinstance(part, Oracle)
        return part


def start(preset: str, minutes: float, out: Path, *, resume: bool = False, origin: Path | None = None) -> Run:
    """A fresh run, from nothing or from the export in `origin`; or the run that the folder holds."""
    torch.manual_seed(0)
    recipe = RECIPES[preset](minutes)
    if resume:
        if not (out / "recipe.json").exists():
            raise BadRequest(f"There is no run in {out.name} to resume", do="Leave --resume away to start one")
        recipe = Recipe.model_validate_json((out / "recipe.json").read_text())
    elif (out / "recipe.json").exists():
        raise BadRequest(
            f"The folder {out.name} already holds a run", do="Add --resume to go on with it, or choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=1))
    code = Autoencoder(recipe.code).to(recipe.device)
    network = nn.ModuleDict(
        {
            "text": TextEncoder(sorted(vocabulary()), recipe.dit.text_width),
            "dit": DiT(recipe.dit),
            "oracle": Oracle(recipe.dit.width, recipe.dit.text_width, LEVELS[recipe.level].words),
        }
    )
    network = network.to(recipe.device, torch.bfloat16)
    optimizer = Optimizer(network, muon_rate=recipe.muon_rate, adam_rate=recipe.adam_rate, ema=recipe.ema)
    code_optimizer = torch.optim.AdamW(code.parameters(), lr=8e-4, weight_decay=0.0)
    run = Run(recipe, out, code, network, optimizer, code_optimizer, torch.Generator())
    if (out / "code.safetensors").exists():
        adopt_code(run, load_file(out / "code.safetensors"))
    if (out / "state.safetensors").exists():
        run.optimizer.restore(load_file(out / "state.safetensors", device=recipe.device))
        facts = json.loads((out / "state.json").read_text())
        run.spent, run.code_steps = facts["spent"], facts["code_steps"]
    if origin is not None and not resume:
        adopt_family(run, origin)
    run.generator.manual_seed(run.optimizer.steps)  # a resumed run sees new examples, and the same ones each time
    return run


def adopt_code(run: Run, tensors: dict[str, Tensor]) -> None:
    """Take over a fitted code; the transformer learns how much each of its channels varies."""
    run.code.load_state_dict({k: v for k, v in tensors.items() if k != "variance"})
    run.dit.variance = tensors["variance"].to(run.recipe.device)


def adopt_family(run: Run, folder: Path) -> None:
    """Begin with the weights of an export: its code is kept, and what came before clips counts as done."""
    family = diorama.load(folder)
    fits = (family.autoencoder.shape, family.dit.shape, family.text.vocabulary)
    if fits != (run.recipe.code, run.recipe.dit, run.text.vocabulary):
        raise BadRequest(
            f"The weights in {folder.name} are of other sizes or words than the preset {run.recipe.preset}",
            do="Choose the preset that made them",
        )
    adopt_code(run, {**family.autoencoder.state_dict(), "variance": family.dit.variance})
    found = nn.ModuleDict({"text": family.text, "dit": family.dit})
    for name, parameter in found.named_parameters():
        run.optimizer.master[name].copy_(parameter)
        run.optimizer.mean[name].copy_(parameter)
    run.optimizer.write_back()
    run.spent = {"stills": 60 * run.recipe.stills_minutes, "decoder": 60 * run.recipe.code_minutes}
    save_code(run)


def pixel_path(run: Run, bucket: Bucket, chunk: int) -> Path:
    """Where the pixels of a chunk lie, for the code alone."""
    return run.folder / "pixels" / f"{bucket.name}-{chunk:04d}.safetensors"


def checkpoint(run: Run) -> None:
    """Everything a resumed run needs; each file appears whole or not at all."""
    if not (run.folder / "code.safetensors").exists():
        return
    save_code(run)
    data.store(run.folder / "state.safetensors", run.optimizer.state())
    facts = {"spent": run.spent, "code_steps": run.code_steps, "steps": run.optimizer.steps}
    aside = run.folder / "state.partial.json"
    aside.write_text(json.dumps(facts))
    aside.replace(run.folder / "state.json")


def save_code(run: Run) -> None:
    """The autoencoder and the variance of its channels."""
    data.store(run.folder / "code.safetensors", {**run.code.state_dict(), "variance": run.dit.variance})


def family_of(run: Run) -> diorama.Diorama:
    """The averaged weights as a working Model, in bfloat16 on the run's device."""
    text = TextEncoder(run.text.vocabulary, run.recipe.dit.text_width)
    dit = DiT(run.recipe.dit)
    network = nn.ModuleDict({"text": text, "dit": dit}).to(run.recipe.device, torch.bfloat16)
    dit.variance = run.dit.variance.float()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(run.optimizer.mean[name])
    return diorama.Diorama(describe(run.recipe), run.code, text, dit)
