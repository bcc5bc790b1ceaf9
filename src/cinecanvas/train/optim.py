"""Muon for the matrices of the blocks, AdamW for the rest, and an exponential mean of all weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Optimizer:
    """float32 masters of a bf16 network; `step` reads its gradients, moves masters and mean, and writes back."""

    def __init__(self, network: nn.Module, *, muon_rate: float, adam_rate: float, ema: float) -> None:
        self.live = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.master = {name: p.detach().float().clone() for name, p in self.live.items()}
        self.mean = {name: p.clone() for name, p in self.master.items()}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.master.items()}
        self.square = {n: torch.zeros_like(p) for n, p in self.master.items() if not is_muon(n, p)}
        self.muon_rate, self.adam_rate, self.ema, self.steps = muon_rate, adam_rate, ema, 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One step at `scale` x the base rates (the schedule's factor)."""
        self.steps += 1
        gradients = {n: p.grad.float() for n, p in self.live.items() if p.grad is not None}
        norm = torch.stack(torch._foreach_norm(list(gradients.values()))).norm()
        clip = (1.0 / (norm + 1e-6)).clamp(max=1.0)
        by_shape: dict[tuple[int, ...], list[tuple[str, Tensor]]] = {}
        for name, gradient in gradients.items():
            if is_muon(name, gradient):
                self.momentum[name].lerp_(gradient, 0.05)
                update = gradient.lerp(self.momentum[name], 0.95)  # Nesterov
                for piece in update.split(update.shape[1]) if "qkv" in name or "text_kv" in name else (update,):
                    by_shape.setdefault(tuple(piece.shape), []).append((name, piece))
            else:
                self._adam(name, gradient * clip, scale)
        self._muon(by_shape, scale)
        decay = min(self.ema, 1 - 1 / (0.1 * self.steps + 1.5))
        torch._foreach_lerp_(list(self.mean.values()), list(self.master.values()), 1 - decay)
        self.write_back()
        for p in self.live.values():
            p.grad = None

    def _muon(self, by_shape: Mapping[tuple[int, ...], list[tuple[str, Tensor]]], scale: float) -> None:
        """Muon (Jordan et al. 2024): the momentum made orthogonal; matrices of one shape go through together."""
        pieces: dict[str, list[Tensor]] = {}
        for shape, items in by_shape.items():
            turned = orthogonal(torch.stack([piece for _, piece in items]))
            factor = max(1.0, shape[0] / shape[1]) ** 0.5
            for (name, _), piece in zip(items, turned.float() * factor, strict=True):
                pieces.setdefault(name, []).append(piece)
        rate = self.muon_rate * scale
        for name, parts in pieces.items():
            self.master[name].mul_(1 - rate * 0.05).sub_(torch.cat(parts), alpha=rate)

    def _adam(self, name: str, gradient: Tensor, scale: float) -> None:
        m, v, rate = self.momentum[name], self.square[name], self.adam_rate * scale
        m.lerp_(gradient, 0.1)
        v.lerp_(gradient.square(), 0.05)
        hat = m / (1 - 0.9**self.steps)
        self.master[name].sub_(rate * hat / ((v / (1 - 0.95**self.steps)).sqrt() + 1e-8))

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, flat."""
        groups = {"master": self.master, "mean": self.mean, "momentum": self.momentum, "square": self.square}
        flat = {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()}
        return flat | {"steps": torch.tensor(self.steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; the network receives the masters."""
        for group, tensors in (
            ("master", self.master),
            ("mean", self.mean),
            ("momentum", self.momentum),
            ("square", self.square),
        ):
            for name, value in tensors.items():
                value.copy_(state[f"{group}/{name}"])
        self.steps = int(state["steps"])
        self.write_back()

    @torch.no_grad()
    def write_back(self) -> None:
        """The masters into the network."""
        for name, p in self.live.items():
            p.copy_(self.master[name])


def is_muon(name: str, p: Tensor) -> bool:
    """Matrices inside the transformer blocks, but not the small modulation."""
    return p.ndim == 2 and "blocks." in name and "modulate" not in name


def orthogonal(batch: Tensor, *, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices (N, rows, columns), by five quintic Newton-Schulz steps in bf16 (Muon)."""
    x = batch.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).bfloat16() + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return x.mT if tall else x


def cooled(done: float, *, decay: float) -> float:
    """The rate's factor when `done` of the run (0..1) is over: constant, then linear to 2 %."""
    return 1.0 if done < 1 - decay else max(0.02, (1 - done) / decay)
