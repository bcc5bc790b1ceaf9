"""A judge reads a clip: for every slot of the grammar, which of its values the pixels show."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinecanvas.errors import BadWeights
from cinecanvas.models import weights
from cinecanvas.world.captions import SLOTS, Spec
from cinecanvas.world.scene import FIRST

VALUES = FIRST.words
LOOKS = ("floor", "sky", "colour", "shape")  # read from places; motion and camera are read from paths
FRAMES, SIDE, FPS = 17, 64, 8.0  # what a judge sees, whatever the clip was: px and 1/s
Eye = Literal["frames", "groups"]
DIGESTS: dict[str, str] = {
    "judge-groups-00001.safetensors": "sha256:d31c783114a9c4df76599d293a4a5fc592988f6b8056b67472445f29ece9dc3c",
    "judge-frames-00001.safetensors": "sha256:f68a85cc0efdef51382bc9bdc1c2be719d0c2c6fe008953db4061a762fca339e",
}  # of the shipped judges


class Verdicts(NamedTuple):
    """shown (B, slots): indices into VALUES by the product of the odds; agree (B,) bool: the judges are of one mind."""

    shown: Tensor
    agree: Tensor


class Judge(nn.Module):
    """RGB (B, 3, 17, 64, 64) in [-1, 1] to one row of logits per slot; two eyes of different make share no weights."""

    def __init__(self, eye: Eye) -> None:
        super().__init__()
        self.eye: Eye = eye
        self.trunk = FrameEye() if eye == "frames" else GroupEye()
        wide, deep = self.trunk.widths
        # each look chooses its own places in space and time, so a small object counts as much as the sky
        self.where = nn.Conv3d(wide, len(LOOKS), 1)
        self.look = nn.ModuleDict({slot: _mlp(wide, 96, len(VALUES[slot])) for slot in LOOKS})
        self.squeeze = nn.Sequential(nn.Conv3d(deep, 24, 1), nn.ReLU(), nn.Flatten())
        self.path = nn.ModuleDict({slot: _mlp(24 * 5 * 4 * 4, 64, len(VALUES[slot])) for slot in ("motion", "camera")})

    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        """Logits (B, values) by slot."""
        places, paths = self.trunk(rgb)
        weight = self.where(places).flatten(2).softmax(-1)
        looks = torch.einsum("bcn,bsn->sbc", places.flatten(2), weight)
        moves = self.squeeze(paths)
        said = {slot: self.look[slot](look) for slot, look in zip(LOOKS, looks, strict=True)}
        return said | {slot: head(moves) for slot, head in self.path.items()}


class FrameEye(nn.Module):
    """Every other frame beside its change since the one before, by 2-D convolutions; two 3-D ones over all of them."""

    widths = (80, 112)

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            _conv2(6, 24, stride=2),
            _conv2(24, 48, stride=2),
            Residual(_conv2(48, 48)),
            _conv2(48, 80, stride=2),
            Residual(_conv2(80, 80)),
        )
        self.paths = nn.Sequential(_conv3(80, 80, stride=(2, 2, 2)), _conv3(80, 112))

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, 80, 9, 8, 8) and paths (B, 112, 5, 4, 4)."""
        rgb = rgb[:, :, ::2]
        before = torch.cat([rgb[:, :, :1], rgb[:, :, :-1]], dim=2)
        both = torch.cat([rgb, 2 * (rgb - before)], dim=1).transpose(1, 2).flatten(0, 1)
        seen = self.frame(both.contiguous(memory_format=torch.channels_last))
        places = seen.unflatten(0, (len(rgb), -1)).transpose(1, 2)
        return places, self.paths(places)


class GroupEye(nn.Module):
    """Space and time by turns from the first layer on: (2 + 1)-D convolutions (Tran et al. 2018)."""

    widths = (96, 128)

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Sequential(
            _conv3(3, 24, kernel=(3, 5, 5), stride=(2, 2, 2)),
            _conv3(24, 48, kernel=(1, 3, 3), stride=(1, 2, 2)),
            Residual(_conv3(48, 48, kernel=(3, 1, 1))),
            _conv3(48, 96, kernel=(1, 3, 3), stride=(1, 2, 2)),
            Residual(_conv3(96, 96, kernel=(3, 1, 1))),
            Residual(_conv3(96, 96, kernel=(1, 3, 3))),
        )
        self.paths = _conv3(96, 128, stride=(2, 2, 2))

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, 96, 9, 8, 8) and paths (B, 128, 5, 4, 4)."""
        places = self.places(rgb.contiguous(memory_format=torch.channels_last_3d))
        return places, self.paths(places)


class Residual(nn.Module):
    """A block added to its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def judges(folder: Path | None = None) -> tuple[Judge, ...]:
    """The shipped judges, verified; or those that lie in the folder."""
    own = Path(str(files("cinecanvas.eval") / "judges"))
    paths = [own / name for name in sorted(DIGESTS)] if folder is None else sorted(folder.glob("judge-*.safetensors"))
    if not paths:
        raise BadWeights(
            f"There is no judge in {folder or own}", do="Train one: python -m cinecanvas.eval.teach --out FOLDER"
        )
    return tuple(_load(path, DIGESTS if folder is None else {}) for path in paths)


def save(folder: Path, judge: Judge, *, facts: dict[str, object]) -> Path:
    """The judge as one file of int8 rows, judge-EYE-00001.safetensors."""
    (path,) = weights.save(folder, f"judge-{judge.eye}", judge.state_dict(), facts={"eye": judge.eye, **facts})
    return path


def seen(rgb: Tensor, *, fps: float) -> Tensor:
    """Clips (B, T, H, W, 3) uint8 as a judge sees them, (B, 3, 17, 64, 64) in [-1, 1]: nearest frames, mean pixels."""
    moments = torch.arange(FRAMES) * (fps / FPS)
    clip = rgb[:, moments.round().long().clamp(max=rgb.shape[1] - 1)]
    x = clip.movedim(-1, 2).flatten(0, 1).float() / 127.5 - 1
    if x.shape[-2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="area" if min(x.shape[-2:]) > SIDE else "bilinear")
    return x.unflatten(0, (len(rgb), FRAMES)).transpose(1, 2)


@torch.inference_mode()
def verdicts(panel: Sequence[Judge], clips: Tensor) -> Verdicts:
    """What the judges read in clips that are as `seen` gives them."""
    parts = []
    for part in clips.split(16):
        said = [judge(part) for judge in panel]
        odds = {slot: torch.stack([one[slot] for one in said]).log_softmax(-1) for slot in SLOTS}
        each = torch.stack([odds[slot].argmax(-1) for slot in SLOTS], -1)
        shown = torch.stack([odds[slot].sum(0).argmax(-1) for slot in SLOTS], -1)
        parts.append(Verdicts(shown, (each == each[0]).all(0).all(-1)))
    return Verdicts(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def labels(specs: Sequence[Spec]) -> Tensor:
    """The true values as indices (B, slots)."""
    return torch.tensor([[VALUES[slot].index(getattr(spec, slot)) for slot in SLOTS] for spec in specs])


def _load(path: Path, digests: dict[str, str]) -> Judge:
    tensors, facts = weights.load([path], digests=digests)
    try:
        judge = Judge("frames" if facts["eye"] == "frames" else "groups")
        judge.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise BadWeights(f"{path.name} is not a judge", do="Train one: python -m cinecanvas.eval.teach") from error
    return judge.eval()


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, out))


def _conv2(width: int, out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _conv3(
    width: int, out: int, *, kernel: tuple[int, int, int] = (3, 3, 3), stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Sequential:
    pad = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
    return nn.Sequential(nn.Conv3d(width, out, kernel, stride, pad, bias=False), nn.BatchNorm3d(out), nn.ReLU())
