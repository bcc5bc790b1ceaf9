"""A public checkpoint as diffusers lays it out: a folder for each part, read when it is needed and no longer."""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinecanvas.errors import BadWeights, Unsupported
from cinecanvas.models.headers import blocked
from cinecanvas.runtime.placement import Placement

if TYPE_CHECKING:  # a folder is recognised on machines without torch
    import torch

    from cinecanvas.model import Weights
    from cinecanvas.models.lora import Change
    from cinecanvas.models.single import Standing
    from cinecanvas.request import Lora

INDEX = "model_index.json"
_MOVED = {  # classes that folders name where no library has them, or has them no more
    "PaellaVQModel": "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model",
    "LTX2TextConnectors": "diffusers.pipelines.ltx2.connectors",
    "LTX2Vocoder": "diffusers.pipelines.ltx2.vocoder",
    "LTX2VocoderWithBWE": "diffusers.pipelines.ltx2.vocoder",
}
_LIBRARIES = ("diffusers", "transformers")  # whose classes read safetensors and run no code of the folder's


def layout(folder: Path) -> dict[str, Any]:
    """The configurations of a folder: its `model_index`, and those of its parts by their names."""
    index = _json(folder / INDEX)
    found: dict[str, Any] = {"model_index": index}
    for part, where in index.items():
        if not part.startswith("_") and isinstance(where, list) and where[-1] is not None:
            found[part] = next((_json(path) for path in _configs(folder / part) if path.is_file()), {})
    return found


@dataclass(frozen=True)
class Parts:
    """The networks of a folder, each loaded when it is first asked for, in the precision and at the place of work."""

    folder: Path
    placement: Placement
    layout: Mapping[str, Any]
    changes: Mapping[str, Sequence[tuple[Lora, Mapping[str, Change]]]] = field(default_factory=dict)  # by part
    standing: Mapping[str, Standing] = field(default_factory=dict)  # by the part that a file stands for
    _loaded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights, placement: Placement) -> Parts:
        """The parts of a folder, none of them loaded; LoRA files are small, and are read now.

        A file that stands for a network is seen to fit it by its header.
        """
        found = layout(weights.folder)
        parts = cls(weights.folder, placement, found, _changes(weights, found) if weights.loras else {})
        return replace(parts, standing=parts._standing(weights)) if weights.networks else parts

    def __contains__(self, part: str) -> bool:
        return part in self.layout

    def config(self, part: str) -> Mapping[str, Any]:
        """What the folder says of a part; missing fields are those of its class."""
        found = self.layout.get(part)
        if not found:
            raise BadWeights(f"The checkpoint {self.folder.name} has no {part}", do="Fetch it again")
        return found

    @property
    def device(self) -> str:
        """Where the networks work."""
        return self.placement.device

    def network(self, part: str, precision: torch.dtype | None = None) -> Any:
        """A network in evaluation mode; `precision` where a part needs its own."""
        if part not in self._loaded:
            self._loaded[part] = self._network(part, precision or self.dtype)
        return self._loaded[part]

    def reader(self, part: str) -> Any:
        """A tokenizer or an image processor."""
        if part not in self._loaded:
            with _told(self.folder, part):
                self._loaded[part] = self._class(part).from_pretrained(self.folder / part, local_files_only=True)
        return self._loaded[part]

    def drop(self, *parts: str) -> None:
        """Forget networks that are not needed for a while, unless all have their place at once."""
        if self.placement.residency == "resident":
            return
        if [self._loaded.pop(part) for part in parts if part in self._loaded]:
            gc.collect()  # networks of transformers refer to themselves
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.empty_cache()

    @property
    def dtype(self) -> torch.dtype:
        """The type in which networks compute."""
        import torch

        return torch.float32 if self.placement.precision == "float32" else torch.bfloat16

    def _network(self, part: str, dtype: torch.dtype) -> Any:
        kind = self._class(part)
        if self.placement.rehearsed:
            return self._rehearsed(kind, part, dtype)
        with _told(self.folder, part):
            network = self._read(kind, part, dtype)
        network = self._changed(part, network.requires_grad_(False), merged=True)
        network = _in_order(self._narrowed(part, network).eval().requires_grad_(False))
        if self.placement.residency == "blocks" and blocks(network):
            return _by_blocks(network, self.device)
        return network.to(self.device)

    def _read(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        if part not in self.standing:
            return kind.from_pretrained(self.folder / part, dtype=dtype, use_safetensors=True, local_files_only=True)
        from cinecanvas.models.single import load

        return load(kind, self.config(part), self.standing[part], dtype=dtype, part=part)

    def _standing(self, weights: Weights) -> dict[str, Standing]:
        """The files that stand for networks; in blocks of few bits nothing can be added to them."""
        from cinecanvas.models.single import fitted

        blocks = next((file for _, file in weights.networks if blocked(file)), None)
        if blocks is not None and weights.loras:
            raise no_lora(blocks)
        return {part: fitted(self._class(part), self.config(part), file, part=part) for part, file in weights.networks}

    def _rehearsed(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """The network with shapes and no numbers; whoever meters it is told what it would weigh."""
        from cinecanvas.runtime.memory import load, rehearsed, unmetered

        config, standing = dict(self.config(part)), self.standing.get(part)
        apart = unmetered() if standing is not None and standing.packed else nullcontext()
        with _told(self.folder, part), apart, rehearsed(dtype, self.device):
            if kind.__module__.startswith("transformers"):
                unset = importlib.import_module("transformers.initialization").no_init_weights
                with unset():  # it would look at numbers that are not there
                    network = kind(kind.config_class.from_dict(config))
            else:
                network = kind.from_config(config)
            if standing is not None:
                from cinecanvas.models.single import packed

                network = packed(network, standing, dtype=dtype)
            network = self._narrowed(part, self._changed(part, network, merged=False))
        load(network, passing=blocks(network) if self.placement.residency == "blocks" else ())
        return network.eval()

    def _narrowed(self, part: str, network: Any) -> Any:
        """The large networks in the precision of the placement; what pictures and sound come of would show it."""
        if part in ("vae", "audio_vae", "vocoder") or self.placement.precision in ("float32", "bfloat16"):
            return network
        if part in self.standing and self.standing[part].packed:  # as narrow as whoever made the file thought good
            return network
        from cinecanvas.runtime.narrow import narrowed

        return narrowed(network, self.placement.precision)

    def _changed(self, part: str, network: Any, *, merged: bool) -> Any:
        """A network with what LoRA files add to it, or only checked that they fit."""
        for lora, changes in self.changes.get(part, ()):
            from cinecanvas.models.lora import check, merge

            check(changes, network, self.layout, named=lora.name)
            if merged:
                merge(changes, network, weight=lora.weight)
        return network

    def _class(self, part: str) -> Any:
        self.config(part)
        where = self.layout["model_index"][part]
        library, name = where if len(where) == 2 else ("", "")
        kind = None
        if name in _MOVED or (library in _LIBRARIES and str(name).isidentifier()):
            try:
                kind = getattr(_home(library, name), name, None)
            except ImportError as error:
                raise BadWeights(
                    f"Public checkpoints need the library {library}, which is not installed",
                    do="pip install 'cinecanvas[checkpoints]'",
                ) from error
        if kind is None:
            raise BadWeights(
                f"The {part} of {self.folder.name} is a {str(name)[:60]}, which no library here knows",
                do="Install a newer diffusers and transformers, or choose another checkpoint",
            )
        return kind


def _changes(weights: Weights, found: Mapping[str, Any]) -> dict[str, list[tuple[Lora, Mapping[str, Change]]]]:
    """What LoRA files change, by the parts of the checkpoint."""
    from cinecanvas.models.lora import parts_of, read

    changes: dict[str, list[tuple[Lora, Mapping[str, Change]]]] = {}
    for lora, file in weights.loras:
        for part, its in read(file, found, named=lora.name).items():
            for one in parts_of(part, lora.expert, found, named=lora.name):
                changes.setdefault(one, []).append((lora, its))
    return changes


def no_lora(file: Path) -> Unsupported:
    """That nothing can be added to weights in GGUF's blocks."""
    return Unsupported(
        f"A LoRA was asked, and {file.name} has its weights in GGUF's blocks, to which nothing is added",
        "A .safetensors file in its place takes LoRA files",
    )


def blocks(network: Any) -> tuple[Any, ...]:
    """The blocks that a transformer runs through one after the other; nothing for other networks."""
    from torch import nn

    lists = [child for child in network.children() if isinstance(child, nn.ModuleList) and len(child) > 1]
    return tuple(block for blocks in lists for block in blocks)


def _in_order(network: Any) -> Any:
    """The weights of convolutions in the order that their kernels read: a third less time for a decoder, measured."""
    import torch
    from torch import nn

    orders = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    for module in network.modules():
        order = next((order for kind, order in orders.items() if isinstance(module, kind)), None)
        if order is not None and min(module.weight.shape[2:]) > 1:
            module.weight.data = module.weight.data.to(memory_format=order)
    return network


def _by_blocks(network: Any, device: str) -> Any:
    """A network whose blocks wait in the machine's memory and come to the device one ahead of their turn."""
    import torch
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        network,
        onload_device=torch.device(device),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.startswith("cuda"),
    )
    return network


def _home(library: str, name: str) -> Any:
    """The module that has a class now."""
    if name not in _MOVED:
        return _quiet(library)
    _quiet(_MOVED[name].partition(".")[0])
    return importlib.import_module(_MOVED[name])


def _quiet(library: str) -> Any:
    """A library that neither draws bars nor warns: what matters to a user is said by us."""
    found = importlib.import_module(library)
    speech = importlib.import_module(f"{library}.utils.logging")
    speech.set_verbosity_error()
    speech.disable_progress_bar()
    return found


class _told:
    """What a library raises about a folder, as one line of ours."""

    def __init__(self, folder: Path, part: str) -> None:
        self._folder, self._part = folder, part

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | ValueError | RuntimeError | KeyError) or type(error).__name__ == (
            "SafetensorError"
        ):
            line = " ".join(str(error).replace(str(self._folder), self._folder.name).split())
            raise BadWeights(
                f"The {self._part} of {self._folder.name} cannot be loaded: {line[:200]}",
                do="Verify it with `cine models verify`, or fetch it again",
            ) from error


def _configs(part: Path) -> tuple[Path, ...]:
    names = (
        "config.json",
        "scheduler_config.json",
        "guider_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
    )
    return tuple(part / name for name in names)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError):
        pass
    raise BadWeights(
        f"{path.parent.name}/{path.name} is missing or is not JSON",
        "A checkpoint is a folder with model_index.json and a folder for each part",
        "Check the folder, or fetch it again",
    )
