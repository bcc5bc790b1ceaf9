"""LTX-2 (Lightricks 2026): film and sound made together, each token of both knowing its own noise."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from cinecanvas.model import Card, Family, Frames, Recipe, SoundCode, Terms
from cinecanvas.models.published import CANVAS, EXACT, all_by, family, published
from cinecanvas.ramp import Line, Listed

if TYPE_CHECKING:  # Cards are read on machines without torch
    import numpy as np
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors, Track
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

TOKENS = 1024  # of a prompt
_LONGEST = 24  # cells-in-time that are decoded at once
_BEFORE, _AFTER = 48, 12  # cells of sound, more than its decoder and its voice hear before and after a moment
_SKIPPED = 28  # the block of 2.3 that is best left out
_SPECTRA = 4  # in a cell of sound


class LTX2:
    """2.0 and 2.3: every task of the canvas, with a track of sound beside that of the film."""

    def __init__(self, card: Card, parts: Parts, *, hindrance: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.card, self._parts, self._hindrance = card, parts, hindrance
        self._ramp = card.recipes["standard"].ramp
        # 2.3 tells each track of the other's noise where they meet, 2.0 of its own
        self._crossed = bool(parts.config("transformer").get("cross_attn_mod"))

    def hindered(self, how: str) -> LTX2:
        """skipping: one block pays no attention within a track; apart: neither track attends to the other."""
        last = self._parts.config("transformer").get("num_layers", 48) - 1
        ways: dict[str, dict[str, Any]] = {
            "skipping": {"spatio_temporal_guidance_blocks": [min(_SKIPPED, last)]},
            "apart": {"isolate_modalities": True},
        }
        return LTX2(self.card, self._parts, hindrance=ways[how])

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents of both tracks, and text states for each."""
        from dataclasses import replace

        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas, sound_track
        from cinecanvas.models.prompts import remembered

        assert self.card.sound is not None, self.card.name
        with torch.inference_mode():
            told = remembered(self._parts, text, self._read, by=("tokenizer", "text_encoder", "connectors"))
            self._parts.drop("text_encoder", "connectors")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            sound = sound_track(canvas.tracks["video"], self.card.sound, device=self._parts.device)
            return Prepared.of(replace(latent, tracks={**latent.tracks, "sound": sound}), told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video (B, C, T', H', W') and of its sound (B, C, T", bins, 1), float32."""
        import torch

        from cinecanvas.models.latents import noisiest, told

        turns = self._turns(z, sigma, cond.canvas)
        x = {name: track.roll(-turns[name], 2) for name, track in z.items()}
        s = {name: level.roll(-turns[name], 2) for name, level in sigma.items()}
        b, _, *cells = x["video"].shape
        dtype = self._parts.dtype
        most = torch.stack([noisiest(level) for level in s.values()]).amax(0)
        with torch.inference_mode():
            network = self._parts.network("transformer")
            film, sound = network(
                hidden_states=_film_tokens(x["video"]).to(dtype),
                audio_hidden_states=_sound_tokens(x["sound"]).to(dtype),
                encoder_hidden_states=cond.given["encoder_hidden_states"].to(dtype),
                audio_encoder_hidden_states=cond.given["audio_encoder_hidden_states"].to(dtype),
                encoder_attention_mask=cond.given["encoder_attention_mask"],
                audio_encoder_attention_mask=cond.given["encoder_attention_mask"],
                timestep=told(self._ramp, _brief(s["video"])).view(b, -1),
                audio_timestep=told(self._ramp, _brief(s["sound"].amax(3, keepdim=True))).view(b, -1),
                sigma=told(self._ramp, most).view(b),
                use_cross_timestep=self._crossed,
                return_dict=False,
                **self._hindrance,
                **self._places(network, cond.canvas.tracks, b),
            )
            x0 = {
                "video": x["video"] - s["video"] * film.float().transpose(1, 2).unflatten(2, cells),
                "sound": x["sound"] - s["sound"] * _sounding(sound.float(), x["sound"]),
            }
        return {name: track.roll(turns[name], 2) for name, track in x0.items()}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3) and, where there is a track of it, sound float32 (s, 2) at the Card's rate.

        Film in parts, for its decoder looks both ways in time; all the sound of these cells comes with the first of
        them. A track "sound_after" is what follows: not given yet, but heard when the last moments are made.
        """
        from cinecanvas.models.latents import in_parts

        past = memory or _Past(None, None)
        film, stride = z["video"][:1], self.card.strides[0]
        frames = in_parts(film, self._decoded, stride=stride, longest=_LONGEST, memory=past.film)
        heard = past.sound
        if "sound" in z:
            samples, heard = self._heard(z["sound"][:1], z.get("sound_after"), past.sound)
            yield Frames(next(frames).rgb, samples)
        return _Past((yield from frames), heard)

    def _places(self, network: Any, tracks: Mapping[str, Track], b: int) -> dict[str, Tensor]:
        """The second and the pixels where each token lies; a window in mid-film counts from the frame before it.

        So its first cell, which holds eight frames where training began with one, stands where a second one stood.
        """
        video, sound = tracks["video"], tracks["sound"]
        lent, fps = min(video.start, 1), video.grid.fps
        cells = video.x.shape[2] + lent, *video.x.shape[3:]
        device = self._parts.device
        places = network.rope.prepare_video_coords(b, *cells, device, fps=fps)
        hearing = network.audio_rope.prepare_audio_coords(b, sound.x.shape[2], device, shift=sound.start)
        before = max(0, video.start - 1) * self.card.strides[0] / fps
        here = places.unflatten(2, cells)[:, :, lent:].flatten(2, 4)
        return {"video_coords": here, "audio_coords": hearing - before}

    def _turns(self, z: Tensors, sigma: Tensors, canvas: Canvas) -> dict[str, int]:
        """By how many cells each track of a ring is turned at this level; both by about the same time."""
        from cinecanvas.models.latents import rolled

        turn = rolled(z["video"], sigma["video"]) if canvas.closed else 0
        return {name: round(turn * track.shape[2] / z["video"].shape[2]) for name, track in z.items()}

    def _decoded(self, latents: Tensor) -> Tensor:
        """A part of a film (3, t, H, W) in [-1, 1]."""
        import torch

        vae = self._parts.network("vae")
        x = latents.to(vae.device) * _row(vae.latents_std) / vae.config.scaling_factor + _row(vae.latents_mean)
        clean = torch.zeros(1, device=x.device, dtype=vae.dtype) if vae.config.timestep_conditioning else None
        return vae.decode(x.to(vae.dtype), clean, return_dict=False)[0][0].float().clamp(-1, 1)

    def _heard(
        self, latents: Tensor, after: Tensor | None, before: Tensor | None
    ) -> tuple[np.ndarray[Any, Any], Tensor]:
        """Samples (s, 2) of cells (1, C, T", bins, 1) between others that were heard before and will be, and the next
        `before`.

        The first cell of a film is one spectrum, each other four: the last of the cell before it comes first.
        """
        import torch

        from cinecanvas.models.latents import samples_of

        lead = 0 if before is None else before.shape[2]
        cells = torch.cat([x for x in (before, latents, after) if x is not None], 2)
        stop = lead + latents.shape[2]
        with torch.inference_mode():
            code, voice = self._parts.network("audio_vae"), self._parts.network("vocoder")
            mean, std = (_flat(x, cells) for x in (code.latents_mean, code.latents_std))
            spectra = code.decode((cells.to(code.device) * std + mean)[..., 0].to(code.dtype), return_dict=False)[0]
            wave = voice(spectra)[0].float()
            each = wave.shape[-1] // spectra.shape[2]
            first, last = (max(0, _SPECTRA * cell - _SPECTRA + 1) * each for cell in (lead, stop))
            return samples_of(wave[:, first:last]), cells[:, :, :stop][:, :, -_BEFORE:]

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """What both tracks are told (B, 1024, width), and which of it counts (B, 1024): all, if registers fill up."""
        import torch

        tokenizer, device = self._parts.reader("tokenizer"), self._parts.device
        tokenizer.padding_side = "left"
        words = tokenizer(
            [prompt.strip() for prompt in text],
            padding="max_length",
            max_length=TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        mask = words["attention_mask"].to(device)
        # the model below the head: scores of a quarter of a million words are for nobody
        encoder = self._parts.network("text_encoder").model
        states = encoder(words["input_ids"].to(device), attention_mask=mask, output_hidden_states=True).hidden_states
        film, sound, mask = self._parts.network("connectors")(torch.stack(states, dim=-1), mask, padding_side="left")
        return {"encoder_hidden_states": film, "audio_encoder_hidden_states": sound, "encoder_attention_mask": mask}

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        code = vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float()
        return (code - _row(vae.latents_mean)) * vae.config.scaling_factor / _row(vae.latents_std)


class _Past(NamedTuple):
    """What the next part of a film is decoded after: the last cells of both tracks."""

    film: Tensor | None
    sound: Tensor | None


def _brief(level: Tensor) -> Tensor:
    """Levels (B, 1, T, H, W), or one for each video where all its cells have the same."""
    one = level[:, :, :1, :1, :1]
    return level if bool((level != one).any()) else one


def _row(values: Tensor) -> Tensor:
    return values.float().view(1, -1, 1, 1, 1)


def _flat(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of each channel and bin, as cells of sound (1, C, 1, bins, 1)."""
    return values.float().view(1, like.shape[1], 1, like.shape[3], 1)


def _film_tokens(x: Tensor) -> Tensor:
    """Cells (B, C, T, H, W) as tokens (B, T H W, C)."""
    return x.flatten(2).transpose(1, 2)


def _sound_tokens(x: Tensor) -> Tensor:
    """Cells of sound (B, C, T, bins, 1) as a token for each moment (B, T, C bins)."""
    return x[..., 0].transpose(1, 2).flatten(2)


def _sounding(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens (B, T, C bins) as cells of sound again."""
    return tokens.unflatten(2, (like.shape[1], like.shape[3])).transpose(1, 2)[..., None]


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), LTX2, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder of LTX-2's transformer whose words Gemma 3 reads, fitted to its own sizes."""
    network, vae, scheduler = (layout.get(part, {}) for part in ("transformer", "vae", "scheduler"))
    read = layout["model_index"].get("text_encoder") or [""]
    if network.get("_class_name") != "LTX2VideoTransformer3DModel" or "Gemma3" not in str(read[-1]):
        return None
    card = CARDS["ltx-2.3" if network.get("cross_attn_mod") else "ltx-2"]
    side, stride = vae.get("spatial_compression_ratio") or 32, vae.get("temporal_compression_ratio") or 8
    ramp = _ramp_of(scheduler)
    return card.model_copy(
        update={
            "channels": network.get("in_channels", 128),
            "strides": (stride, side, side),
            "sides": side,
            "sound": _sound_of(layout),
            "recipes": {quality: one.model_copy(update={"ramp": ramp}) for quality, one in card.recipes.items()},
        }
    )


def _sound_of(layout: Mapping[str, Any]) -> SoundCode:
    """The latent sound of a folder."""
    code, voice = layout.get("audio_vae", {}), layout.get("vocoder", {})
    rate = 48_000 if "bwe_in_channels" in voice else 24_000
    return SoundCode(
        rate=voice.get("output_sampling_rate", rate),
        moments=code.get("sample_rate", 16_000) / code.get("mel_hop_length", 160),
        bins=code.get("mel_bins", 64),
        strides=(_SPECTRA, _SPECTRA),
        channels=code.get("latent_channels", 8),
        after=_AFTER,
    )


def _ramp_of(scheduler: Mapping[str, Any]) -> Line:
    """The levels of a folder's scheduler."""
    terminal = scheduler.get("shift_terminal") or 0.0
    if not scheduler.get("use_dynamic_shifting"):
        return Line(terminal=terminal)
    few, many = scheduler.get("base_image_seq_len", 1024), scheduler.get("max_image_seq_len", 4096)
    low, high = scheduler.get("base_shift", 0.95), scheduler.get("max_shift", 2.05)
    return Line(growing=((few, low), (many, high)), terminal=terminal)


_RAMP = Line(growing=((1024, 0.95), (4096, 2.05)), terminal=0.1)
_DISTILLED = Listed(at=(1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875))
_TASKS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(
    ("exact", "noise per token"), "image_to_video", *CANVAS
)
_TASKS |= {"loop": ("approximate", "noise per token, the ring turned from step to step")}


_APART, _SKIPPING = ("apart", 2.0), ("skipping", 1.0)


def _card(
    name: str,
    title: str,
    repository: str,
    *,
    rate: int,
    distilled: bool = False,
    hindered: tuple[tuple[str, float], ...] = (),
) -> Card:
    recipe = Recipe(
        steps=30,
        guidance=3.0,
        sound=7.0,
        rescale=0.7,
        hindered=hindered,
        guided_from=0.0,
        shift=1.0,
        solver="euler",
        ramp=_RAMP,
    )
    steps: dict[Any, int] = {"draft": 15, "standard": 30, "best": 50}
    if distilled:
        recipe = recipe.model_copy(update={"guidance": 1.0, "sound": None, "rescale": 0.0, "ramp": _DISTILLED})
        steps = dict.fromkeys(steps, len(_DISTILLED.at))
    return published(
        name,
        title,
        repository,
        tasks=_TASKS,
        recipe=recipe,
        steps=steps,
        licence="LTX-2 Community License",
        terms=Terms(
            url="https://github.com/Lightricks/LTX-2/blob/main/LICENSE",
            accept=True,
            revenue="companies with 10 million US dollars a year or more need a licence from Lightricks",
        ),
        tracks=("video", "sound"),
        sound=SoundCode(rate=rate, moments=100.0, bins=64, strides=(_SPECTRA, _SPECTRA), channels=8, after=_AFTER),
        channels=128,
        strides=(8, 32, 32),
        sides=32,
        sizes=((768, 512), (512, 768), (704, 480), (480, 704), (512, 512)),
        fps=24.0,
        seconds=121 / 24,
        max_seconds=60.0,
        window=31,
        overlap=4,
    )


CARDS = {
    card.name: card
    for card in (
        # its attention cannot be skipped in this layout: diffusers' pipeline asks for it and gets the same answer
        _card("ltx-2", "LTX-2, 19B, film with sound", "Lightricks/LTX-2", rate=24_000, hindered=(_APART,)),
        _card(
            "ltx-2.3",
            "LTX-2.3, film with sound",
            "diffusers/LTX-2.3-Diffusers",
            rate=48_000,
            hindered=(_SKIPPING, _APART),
        ),
        _card(
            "ltx-2.3-distilled",
            "LTX-2.3, film with sound, in eight steps",
            "diffusers/LTX-2.3-Distilled-Diffusers",
            rate=48_000,
            distilled=True,
        ),
    )
}
