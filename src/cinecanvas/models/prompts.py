"""What text encoders made of prompts, kept: a prompt that was read before needs no encoder, which is often the largest
network of a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cinecanvas.models.checkpoint import Parts
from cinecanvas.settings import settings

MOST = 2 << 30  # bytes, of all prompts; those not asked for longest go first

Read = Callable[[Sequence[str]], Mapping[str, Tensor]]  # n prompts to tensors of n rows


def remembered(parts: Parts, text: Sequence[str], read: Read, *, by: Sequence[str], way: str = "") -> dict[str, Tensor]:
    """Tensors of as many rows as prompts: of those read before from disk, of the others from the encoders `by`.

    way: a name for how they read, for a family that has several.
    """
    folder = settings().cache / "prompts"
    names = {prompt: _name(parts, by, prompt, way) for prompt in dict.fromkeys(text)}
    rows = {prompt: found for prompt, name in names.items() if (found := _kept(folder / name)) is not None}
    fresh = [prompt for prompt in names if prompt not in rows]
    if fresh:
        made = read(fresh)
        for number, prompt in enumerate(fresh):
            rows[prompt] = {name: tensor[number : number + 1] for name, tensor in made.items()}
            if not any(isinstance(tensor, FakeTensor) for tensor in made.values()):
                _keep(folder, names[prompt], rows[prompt])
    device = parts.device
    return {name: torch.cat([rows[prompt][name].to(device) for prompt in text]) for name in rows[text[0]]}


def _name(parts: Parts, by: Sequence[str], prompt: str, way: str) -> str:
    """The digest of all that the states depend on: the encoders' files and how they read, the precision, the words."""
    digest = hashlib.sha256(f"{parts.placement.precision}\0{prompt}".encode())
    if way:
        digest.update(f"\0{way}".encode())
    for lora, _ in (change for part in by for change in parts.changes.get(part, ())):
        digest.update(f"\0{lora.digest}\0{lora.weight}".encode())
    for part in by:
        for path in sorted((parts.folder / part).rglob("*")):
            facts = path.stat()
            digest.update(f"\0{part}/{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}".encode())
    return f"{digest.hexdigest()}.safetensors"


def _kept(path: Path) -> dict[str, Tensor] | None:
    """What was kept; a file that is damaged is as good as none."""
    try:
        found = load(path.read_bytes())
        os.utime(path)
        return found
    except (OSError, SafetensorError, ValueError):
        return None


def _keep(folder: Path, name: str, rows: Mapping[str, Tensor]) -> None:
    """Keep one prompt's rows, and let go of the oldest beyond MOST; a cache that cannot be written harms nobody."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_bytes(save({key: tensor.cpu().contiguous() for key, tensor in rows.items()}))
        aside.replace(folder / name)
        held = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        size = 0
        for path in held:
            size += path.stat().st_size
            if size > MOST:
                path.unlink(missing_ok=True)
