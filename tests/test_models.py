"""Our own networks: the code is exact where it must be, the transformer starts sane, weights are verified."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cinecanvas.canvas import Canvas, Track
from cinecanvas.errors import BadWeights
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.model import Card, Frames
from cinecanvas.models import diorama, weights
from cinecanvas.models.autoencoder import Autoencoder, CodeShape, groups_of, principal_components, to_cells
from cinecanvas.models.dit import DiT, DiTShape, lattice, preconditioning
from cinecanvas.models.text import TextEncoder
from cinecanvas.sampler import fill
from cinecanvas.schedule import full

CODE = CodeShape(channels=24, widths=(16, 8, 8, 8))
SHAPE = DiTShape(channels=24, width=32, depth=2, heads=2, rank=8, text_width=32)
CARD = Card(name="little", title="A little diorama", licence="Apache-2.0", strides=(4, 16, 16))


def little(seed: int = 0) -> diorama.Diorama:
    """A small, untrained family; its zero-initialised layers are shaken so that every path carries something."""
    torch.manual_seed(seed)
    family = diorama.Diorama(CARD, Autoencoder(CODE), TextEncoder(["ball", "red"], 32), DiT(SHAPE))
    with torch.no_grad():
        family.autoencoder.basis.copy_(torch.linalg.qr(torch.randn(CODE.pixels, CODE.channels))[0].T)
        for part in diorama.parts(family).values():
            for parameter in part.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return family


def canvas(batch: int = 1, frames: int = 9) -> Canvas:
    grid = Grid(frames=frames, height=32, width=48, fps=8)
    return Canvas({"video": Track.blank(grid, channels=3, batch=batch)})


def test_cells_come_back_as_the_same_pixels() -> None:
    rgb = torch.rand(2, 3, 9, 32, 48) * 2 - 1
    back = groups_of(to_cells(rgb, (4, 16, 16)), (4, 16, 16)).unflatten(2, (3, 4))
    assert torch.equal(back[:, 1:].permute(0, 2, 1, 3, 4, 5).flatten(2, 3), rgb[:, :, 1:])
    assert torch.equal(back[:, 0, :, 2], rgb[:, :, 0])


def test_principal_components_rebuild_what_lies_in_their_plane() -> None:
    cells = torch.randn(400, 6) @ torch.randn(6, 200) + 0.3
    mean, basis, deviation = principal_components(cells, 6)
    rebuilt = (cells - mean) @ basis.T @ basis + mean
    assert torch.allclose(rebuilt, cells, atol=1e-3)
    assert torch.allclose(deviation, ((cells - mean) @ basis.T).std(0, correction=0), rtol=1e-3)


def test_a_cell_is_encoded_alone_so_the_future_cannot_leak() -> None:
    family, rgb = little(), torch.rand(1, 3, 9, 32, 48)
    changed = rgb.clone()
    changed[:, :, 5:] = 0
    assert torch.equal(family.autoencoder.encode(rgb)[:, :, :2], family.autoencoder.encode(changed)[:, :, :2])


def test_the_decoder_streams_what_it_decodes_at_once() -> None:
    family = little()
    z = torch.randn(1, 24, 3, 2, 3)
    groups = list(family.autoencoder.stream(z))
    assert [group.shape[2] for group in groups] == [1, 4, 4]
    assert torch.equal(torch.cat(groups, dim=2), family.autoencoder.decode(z))


def test_a_film_decoded_in_two_pieces_is_the_same_film() -> None:
    family = little()
    torch.nn.init.normal_(family.autoencoder.residual.remember.weight)
    z = torch.randn(1, 24, 5, 2, 3)

    def in_pieces() -> Iterator[Frames]:
        memory = yield from family.decode({"video": z[:, :, :2]})
        yield from family.decode({"video": z[:, :, 2:]}, memory=memory)

    halves, whole = (np.concatenate([f.rgb for f in way]) for way in (in_pieces(), family.decode({"video": z})))
    assert np.array_equal(halves, whole)


def test_the_last_cell_of_a_ring_is_beside_its_first() -> None:
    """Unrolled by half a turn on both sides, a closed canvas is guessed as its middle is in an open one."""
    family = little()
    grid = Grid(frames=33, height=32, width=48, fps=8)
    z, level = torch.randn(1, 24, 4, 2, 3), torch.full((1, 1, 4, 2, 3), 0.8)

    def guess(z: torch.Tensor, level: torch.Tensor, *, closed: bool) -> torch.Tensor:
        pixels = torch.zeros(1, 3, 4 * z.shape[2], 32, 48)
        blank = Canvas({"video": Track(pixels, pixels[:, :1], grid, 1)}, closed=closed)
        return family.denoise({"video": z}, {"video": level}, family.prepare(blank, ["red ball"]))["video"]

    turn = [2, 3, 0, 1, 2, 3, 0, 1]
    ring, line = guess(z, level, closed=True), guess(z[:, :, turn], level[:, :, turn], closed=False)
    assert torch.equal(ring, line[:, :, 2:6]) and not torch.equal(ring, guess(z, level, closed=False))


def test_pixels_that_are_known_inside_a_hole_hold_in_every_guess() -> None:
    """A picture in the middle of a group of frames, and half of a cell: the code allows both, so both come out."""
    family = little()
    code = family.autoencoder
    blank = canvas()
    truth = code.linear(torch.randn(1, 24, 3, 2, 3)).unflatten(2, (3, 4)).permute(0, 2, 1, 3, 4, 5).flatten(2, 3)
    rgb = torch.cat([truth[:, :, :1], truth[:, :, 4:]], dim=2)  # in the plane of the code, as a clip of 9 frames
    known = blank.place("video", rgb[:, :, 6:7], at=(6, 0, 0)).place("video", rgb[:, :, :1, :, :8], at=(0, 0, 0))
    cond = family.prepare(known, ["red ball"])
    assert {tuple(place) for place in cond.partial.places.tolist()} == {
        *((0, 2, y, x) for y in range(2) for x in range(3)),
        *((0, 0, y, 0) for y in range(2)),
    }
    z = {"video": torch.randn(1, 24, 3, 2, 3)}
    guess = family.denoise(z, {"video": torch.ones(1, 1, 3, 2, 3)}, cond)["video"]
    frames = code.linear(guess).unflatten(2, (3, 4))
    assert (frames[:, 2, :, 1] - rgb[:, :, 6]).square().mean() < 0.05 * rgb[:, :, 6].var()
    free = family.denoise(z, {"video": torch.ones(1, 1, 3, 2, 3)}, family.prepare(blank, ["red ball"]))["video"]
    assert torch.equal(guess[:, :, 1], free[:, :, 1]) and not torch.equal(guess[:, :, 2], free[:, :, 2])


def test_a_known_cell_passes_the_transformer_exactly() -> None:
    family = little()
    z = torch.randn(1, 24, 3, 2, 3)
    sigma = torch.full((1, 1, 3, 2, 3), 0.7)
    sigma[:, :, 0] = 0
    cond = family.prepare(canvas(), ["red ball"])
    x0 = family.denoise({"video": z}, {"video": sigma}, cond)["video"]
    assert torch.allclose(x0[:, :, 0], z[:, :, 0], atol=1e-6)
    assert not torch.allclose(x0[:, :, 1:], z[:, :, 1:], atol=1e-2)


def test_preconditioning_is_the_wiener_filter_of_each_channel() -> None:
    torch.manual_seed(0)
    variance, sigma = torch.tensor([4.0, 0.25]), torch.tensor(0.6)
    x = torch.randn(200_000, 2) * variance.sqrt()
    z = (1 - sigma) * x + sigma * torch.randn_like(x)
    skip, scale, total = preconditioning(sigma, variance)
    assert torch.allclose(z.std(0), total, rtol=0.02)
    assert torch.allclose((x - skip * z).std(0), scale, rtol=0.02)


def test_positions_are_the_middle_of_the_frames_a_cell_holds() -> None:
    times = lattice(3, 1, 1, stride=4, start=0)[:, 0]
    assert torch.allclose(times * 4, torch.tensor([0.0, 2.5, 6.5]))  # frames 0, 1-4, 5-8


def test_a_prompt_in_a_batch_reads_as_it_does_alone() -> None:
    family = little()
    z, sigma = torch.randn(1, 24, 3, 2, 3), torch.full((1, 1, 3, 2, 3), 0.5)
    alone = family.denoise({"video": z}, {"video": sigma}, family.prepare(canvas(), ["red ball"]))
    pair = family.prepare(canvas(2), ["red ball", "a much longer sentence of words that were never seen"])
    both = family.denoise({"video": z.repeat(2, 1, 1, 1, 1)}, {"video": sigma.repeat(2, 1, 1, 1, 1)}, pair)
    assert torch.allclose(both["video"][:1], alone["video"], atol=1e-4)


def test_unknown_words_are_told_apart_by_their_pieces() -> None:
    text = TextEncoder(["ball"], 32)
    states, _ = text(*text.tokens(["crimson", "crimsom", "grass"]))
    like, unlike = ((states[0] - states[i]).norm() for i in (1, 2))
    assert 0 < like < unlike


def test_a_fill_keeps_known_latents_bit_equal() -> None:
    family, pixels = little(), torch.rand(1, 3, 1, 32, 48) * 2 - 1
    cond = family.prepare(canvas().place("video", pixels), ["red ball"])
    *_, last = fill(
        guided(family, 2.0), guided(family, 2.0).prepare(canvas().place("video", pixels), ["red ball"]), full(3), seed=1
    )
    assert torch.equal(last.z["video"][:, :, 0], cond.canvas.tracks["video"].x[:, :, 0])


def test_some_of_what_is_prepared_is_what_is_prepared_for_some() -> None:
    """Three videos with a frame known in mid-cell each; two alone give the same guess."""
    family, pixels = little(), torch.rand(3, 3, 1, 32, 48) * 2 - 1
    laid = canvas(3).place("video", pixels, at=(2, 0, 0))
    z, sigma = torch.randn(3, 24, 3, 2, 3), torch.full((3, 1, 3, 2, 3), 0.5)
    whole = family.denoise({"video": z}, {"video": sigma}, family.prepare(laid, ["red", "blue", "green"]))
    for start, stop in ((0, 2), (1, 3)):
        some = family.prepare(laid, ["red", "blue", "green"]).videos(start, stop)
        alone = family.denoise({"video": z[start:stop]}, {"video": sigma[start:stop]}, some)
        assert some.canvas.batch == 2 and torch.allclose(alone["video"], whole["video"][start:stop], atol=1e-4)


def test_saved_weights_load_as_the_same_family(tmp_path) -> None:
    family = little()
    card = diorama.save(tmp_path, family, CARD)
    loaded = diorama.load(tmp_path)
    assert card.parameters > 0 and loaded.card == card
    z, sigma = torch.randn(1, 24, 3, 2, 3), torch.full((1, 1, 3, 2, 3), 0.5)
    a, b = (m.denoise({"video": z}, {"video": sigma}, m.prepare(canvas(), ["red"]))["video"] for m in (family, loaded))
    assert (a - b).abs().max() < 0.05 * a.abs().max()  # int8 rows and a bf16 network


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "garbage"])
def test_harmed_weights_are_refused_in_one_line(tmp_path, harm: str) -> None:
    diorama.save(tmp_path, little(), CARD)
    (path,) = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 255
        path.write_bytes({"truncate": data[:1000], "flip": data, "garbage": b"\x80\x04pickle"}[harm])
    with pytest.raises(BadWeights) as refused:
        diorama.load(tmp_path)
    assert "\n" not in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_int8_rows_lose_less_than_half_a_step() -> None:
    matrix = torch.randn(64, 128)
    back = weights.unpack(weights.pack({"m": matrix}))["m"]
    assert ((back - matrix).abs() <= matrix.abs().amax(1, keepdim=True) / 127 * 0.51).all()
