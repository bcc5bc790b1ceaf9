"""Weights on disk: safetensors shards, int8 rows where that costs nothing, every file named by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cinecanvas.errors import BadWeights

SHARD = 14_000_000  # bytes: what comes back from a rented machine is often capped at 15 or 16 MB a file


def save(
    folder: Path, name: str, tensors: Mapping[str, Tensor], *, int8: bool = True, facts: Mapping[str, object] = {}
) -> list[Path]:
    """Write NAME-00001.safetensors ... into the folder; matrices as int8 rows with a scale each, the rest float32."""
    packed = pack(tensors) if int8 else {key: value.contiguous() for key, value in tensors.items()}
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in packed.items():
        weight = value.numel() * value.element_size()
        if shards[-1] and size + weight > SHARD:
            shards.append({})
            size = 0
        shards[-1][key] = value
        size += weight
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.safetensors"):
        old.unlink()
    paths = [folder / f"{name}-{i:05d}.safetensors" for i in range(1, len(shards) + 1)]
    metadata = {"facts": json.dumps(dict(facts), sort_keys=True)}
    for path, shard in zip(paths, shards, strict=True):
        aside = path.with_suffix(".partial")
        save_file(shard, aside, metadata=metadata)
        aside.chmod(0o644)  # safetensors writes for the owner alone, but a package is read by everyone
        aside.replace(path)
    return paths


def load(paths: list[Path], *, digests: Mapping[str, str] = {}) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors (float32) and facts of all shards; a file that is missing, damaged or another one is refused by name."""
    packed: dict[str, Tensor] = {}
    facts: dict[str, object] = {}
    for path in paths:
        verify(path, digests.get(path.name))
        try:
            with safe_open(path, framework="pt") as file:
                keys = list(file.keys())
                if len(set(keys)) != len(keys) or packed.keys() & set(keys):
                    raise BadWeights(f"{path.name} names a tensor twice", do="Install cinecanvas again")
                packed |= {key: file.get_tensor(key) for key in keys}
                facts |= json.loads((file.metadata() or {}).get("facts", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise BadWeights(f"{path.name} cannot be read as safetensors", do="Install cinecanvas again") from error
    return unpack(packed), facts


def verify(path: Path, digest: str | None) -> None:
    """Refuse a file that is missing or whose sha256 is not the one on the Card."""
    if not path.is_file():
        raise BadWeights(f"The weights {path.name} are missing", do="Install cinecanvas again")
    if digest is not None and digest_of(path) != digest:
        raise BadWeights(
            f"The weights {path.name} are damaged: their sha256 is not the one on the Card",
            do="Install cinecanvas again",
        )


def digest_of(path: Path) -> str:
    """sha256:<hex> of a file, read in pieces."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices to int8 rows (absmax / 127) with a float32 scale per row: +0.02 % validation loss when measured."""
    packed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if value.ndim < 2 or value.numel() < 4096:
            packed[key] = value.float().contiguous()
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        packed[key] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape).contiguous()
        packed[f"{key}.scale"] = scale
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`, in float32."""
    tensors = {}
    for key, value in packed.items():
        if value.dtype == torch.int8:
            scale = packed[f"{key}.scale"]
            tensors[key] = value.float() * scale.view(-1, *(1,) * (value.ndim - 1))
        elif not (key.endswith(".scale") and key.removesuffix(".scale") in packed):
            tensors[key] = value.float()
    return tensors
