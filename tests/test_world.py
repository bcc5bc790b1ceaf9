"""The miniature world: the same seed is the same clip, mirrors mirror, truth is true, words come back."""

from __future__ import annotations

import pytest
import torch

from cinecanvas.errors import BadRequest
from cinecanvas.world import captions, motion
from cinecanvas.world.render import Rendered, render
from cinecanvas.world.scene import FIRST, Scene, Thing, change, draw, held_out_triple, mirror


def small(scenes: list[Scene], *, frames: int = 3, truth: bool = False, start: float = 0.0) -> Rendered:
    return render(scenes, frames=frames, height=32, width=32, fps=8, truth=truth, start=start)


def stage(**atoms: str) -> Scene:
    scene = Scene(things=(Thing(shape="ball", colour="red", motion="rest"),), floor="checker", sky="day")
    for atom, value in atoms.items():
        scene = change(scene, atom, value)
    return scene


def reach(**atoms: str) -> torch.Tensor:
    """Centre (T, 3) of the object in a usual clip: x, y in fractions of the frame, visible fraction."""
    truth = render([stage(**atoms)], frames=17, height=32, width=32, fps=8, truth=True).truth
    assert truth
    return truth.tracks[0, :, 0] / torch.tensor([32, 32, 1])


def test_a_seed_is_a_scene() -> None:
    assert draw(7, FIRST) == draw(7, FIRST) != draw(8, FIRST)
    assert Scene.model_validate_json(draw(7, FIRST).model_dump_json()) == draw(7, FIRST)


def test_a_clip_does_not_depend_on_its_batch_or_its_start() -> None:
    scenes = [draw(seed, FIRST) for seed in range(6)]
    together = small(scenes).rgb
    assert torch.equal(small(scenes[4:5]).rgb[0], together[4])
    assert torch.equal(small(scenes, frames=2, start=1 / 8).rgb, together[:, 1:])


def test_a_mirrored_scene_is_the_flipped_picture() -> None:
    scenes = [draw(seed, FIRST) for seed in range(24)]
    plain, flipped = small(scenes, frames=2).rgb, small([mirror(scene) for scene in scenes], frames=2).rgb
    off = (plain.flip(3).int() - flipped.int()).abs()
    assert off.float().mean() < 0.2
    assert [mirror(mirror(scene)) for scene in scenes] == scenes


@pytest.mark.parametrize("moving", FIRST.motions)
def test_every_motion_goes_where_its_name_says(moving: str) -> None:
    way = reach(motion=moving)
    across, down = way[-1, :2] - way[0, :2]
    assert (way[:, 2] > 0.25).all() and way[4:-2, 2].min() > 0.8
    if moving in ("left", "right"):
        assert (0.25 < across < 0.6) == (moving == "right") and abs(across) > 0.25
    if moving in ("fall", "rise"):
        assert abs(down) > 0.2 and (down > 0) == (moving == "fall")
    if moving == "bounce":
        assert way[:, 1].max() - way[:, 1].min() > 0.15


def test_near_and_away_change_the_size_by_at_least_1_6() -> None:
    for moving, low, high in (("near", 1.6, 2.3), ("away", 1 / 2.3, 1 / 1.6)):
        truth = render([stage(motion=moving)], frames=2, height=64, width=64, fps=0.5, truth=True).truth
        assert truth
        size = (truth.segmentation[0] == 2).sum((1, 2)).sqrt()
        assert low < size[1] / size[0] < high


def test_pan_left_moves_the_content_to_the_right() -> None:
    assert 0.2 < (reach(camera="pan_left")[-1] - reach(camera="pan_left")[0])[0] < 0.35


def test_flow_carries_a_frame_onto_the_next() -> None:
    truth = small([stage(motion="right", camera="pan_left")], truth=True).truth
    assert truth
    way, flow = truth.tracks[0, :, 0, :2], truth.flow[0]
    on_ball = truth.segmentation[0, 0] == 2
    ahead = truth.extrinsics[0, 0] @ torch.tensor([0.0, 1.1, 0.0, 1.0])
    assert torch.allclose(flow[0][on_ball].mean(0), (way[1] - way[0]), atol=0.35)
    assert torch.allclose((truth.intrinsics[0, 0] @ ahead)[:2] / ahead[2], _still_centre(), atol=0.2)
    assert (flow[-1] == 0).all() and not torch.isnan(flow).any()


def _still_centre() -> torch.Tensor:
    """Where a ball at rest in the middle is seen in the first frame of a pan to the left."""
    truth = small([stage(camera="pan_left")], truth=True).truth
    assert truth
    return truth.tracks[0, 0, 0, :2]


def test_a_bounce_is_an_event_on_the_floor() -> None:
    scene = stage(motion="bounce")
    heard = motion.events(scene, 0.0, 4.0)
    low = [float(motion.pose(scene.things[0], motion.np.array([at])).centre[0, 1]) for at, _ in heard]
    assert len(heard) == 5 and max(low) < 1.1 + 1e-6


def test_wide_and_tall_frames_keep_the_object() -> None:
    for height, width in ((32, 56), (56, 32)):
        truth = render([stage()], frames=1, height=height, width=width, fps=8, truth=True).truth
        assert truth and 0.06 < (truth.segmentation == 2).float().mean() < 0.2


def test_the_colour_of_the_object_is_what_it_is_called_at_any_time_of_day() -> None:
    scenes = [stage(colour=colour, sky=sky, floor="sand") for sky in FIRST.skies for colour in FIRST.colours]
    shown = small(scenes, frames=1, truth=True)
    assert shown.truth
    pairs = zip(shown.rgb, shown.truth.segmentation, strict=True)
    seen = [picture[mask == 2].float().median(0).values for picture, mask in pairs]
    hues = torch.nn.functional.normalize(torch.stack(seen), dim=1).view(4, 8, 3)
    for by_day in hues[0], hues[1], hues[2], hues[3]:
        assert torch.equal((by_day @ hues[0].T).argmax(1), torch.arange(8))


def test_what_the_grammar_says_it_understands() -> None:
    for seed in range(1500):
        said = captions.caption(draw(seed, FIRST), seed)
        assert captions.read(said.text).values == {slot: getattr(said.spec, slot) for slot in said.mentioned}, said.text
        assert set(captions.words(said.text)) <= captions.vocabulary()


def test_held_out_words_and_triples_stay_out() -> None:
    forms = [form for slot in captions.HELD_OUT.values() for value in slot.values() for form in value]
    assert len(forms) >= 40 and all(set(captions.words(form)) - captions.vocabulary() for form in forms)
    for held_out in (False, True):
        things = [draw(seed, FIRST, held_out=held_out).things[0] for seed in range(200)]
        assert {held_out_triple(one.colour, one.shape, one.motion) for one in things} == {held_out}


def test_a_sentence_is_read_with_what_it_does_not_know() -> None:
    reading = captions.read("A ruby globe slowly rolling left on the beach while a dragon sings, zoom in")
    assert reading.values == {"colour": "red", "shape": "ball", "motion": "left", "floor": "sand", "camera": "zoom_in"}
    assert reading.words["shape"] == "globe" and reading.ignored == ("slowly", "dragon", "sings")


def test_an_unknown_atom_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="floor, sky, camera"):
        change(stage(), "smell", "rose")
