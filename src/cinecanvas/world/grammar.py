"""The words of the miniature world: how people say every value of every slot, level by level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cinecanvas.world.scene import FIRST, Level

Forms = Mapping[str, tuple[str, ...]]


class Grammar(NamedTuple):
    """Forms by slot and value, true synonyms that training never shows, and what single words mean by themselves."""

    forms: Mapping[str, Forms]
    held_out: Mapping[str, Forms]
    alone: Mapping[str, tuple[str, str]]
    joints: tuple[str, ...]  # words that another thing may follow
    towards: tuple[str, ...]  # ends of a motion that another thing must follow


def grammar(level: Level) -> Grammar:
    """The words of a level: the first one's, or all."""
    later = (level.weathers, level.sizes, level.patterns, level.materials)
    shared = ("shapes", "colours", "floors", "skies", "motions", "cameras")
    within = all(set(getattr(level, name)) <= set(getattr(FIRST, name)) for name in shared)
    return SIMPLE if within and not any(later) and level.most_things == 1 else COMPLETE


def _verbs(stems: str, *ends: str) -> tuple[str, ...]:
    """Every "slides/sliding" of `stems` before every end: the finite form, then the -ing form."""
    pairs = (pair.split("/") for pair in stems.split())
    return tuple(" ".join(f"{verb} {end}".split()) for pair in pairs for verb in pair for end in ends)


# The first form of each value is the plain one; HELD_OUT forms are true synonyms that training never shows.
COLOURS: Forms = {
    "red": ("red", "crimson", "scarlet", "ruby", "bright red"),
    "orange": ("orange", "tangerine", "amber", "bright orange"),
    "yellow": ("yellow", "golden", "lemon", "bright yellow"),
    "green": ("green", "emerald", "bright green", "leaf green"),
    "blue": ("blue", "azure", "royal blue", "navy", "bright blue"),
    "purple": ("purple", "violet", "lilac", "plum"),
    "pink": ("pink", "rosy", "rose", "hot pink", "bright pink"),
    "white": ("white", "pure white", "snow white", "milky"),
}
SHAPES: Forms = {
    "ball": ("ball", "sphere", "orb", "globe", "marble"),
    "cube": ("cube", "box", "block", "crate"),
    "cone": ("cone", "party hat", "pointed cone", "spike"),
    "cylinder": ("cylinder", "can", "barrel", "tube", "pillar"),
}
FLOORS: Forms = {
    "grass": ("on grass", "on the grass", "on a lawn", "on a meadow", "in a meadow", "on a green field", "over grass"),
    "sand": ("on sand", "on the sand", "on a beach", "in the desert", "in a sandy desert", "over sand", "at the beach"),
    "snow": ("on snow", "in the snow", "on a snowy field", "on snowy ground", "over snow", "in a winter landscape"),
    "water": ("on water", "on the water", "over water", "on a lake", "over a lake", "on the sea", "over the sea"),
    "wood": (
        "on a wooden floor", "on wood", "on wooden boards", "on wooden planks", "over a wood floor", "on a plank floor",
    ),
    "checker": (
        "on a checkered floor", "on a checkerboard", "on a chessboard", "on checkered tiles", "over a tiled floor",
        "on black and white tiles",
    ),
}  # fmt: skip
SKIES: Forms = {
    "day": (
        "by day", "on a sunny day", "under a blue sky", "in daylight", "at noon", "in the sunshine", "on a clear day",
        "mid-day",
    ),
    "sunset": ("at sunset", "at dusk", "in the evening", "at dawn", "at sunrise", "under an orange sky", "sunset"),
    "night": ("at night", "under the stars", "by night", "under a starry sky", "in the dark", "in moonlight", "night"),
    "overcast": (
        "under an overcast sky", "under a grey sky", "on a cloudy day", "on a grey day", "under grey clouds",
        "overcast", "in cloudy weather",
    ),
}  # fmt: skip
_MOVES = "moves/moving slides/sliding glides/gliding travels/travelling drifts/drifting goes/going rolls/rolling"
MOTIONS: Forms = {
    "rest": (
        *_verbs("rests/resting sits/sitting stands/standing stays/staying", "", "still"),
        "standing there", "not moving", "at rest",
    ),
    "left": _verbs(_MOVES, "to the left", "left", "leftwards", "from right to left"),
    "right": _verbs(_MOVES, "to the right", "right", "rightwards", "from left to right"),
    "bounce": _verbs("bounces/bouncing hops/hopping leaps/leaping jumps/jumping", "", "up and down"),
    "fall": (*_verbs("falls/falling drops/dropping", "", "down", "from the sky", "from above"), "lands", "landing"),
    "rise": (
        *_verbs("rises/rising floats/floating flies/flying lifts/lifting", "up", "into the air", "upwards"),
        "rises", "rising",
    ),
    "near": (
        *_verbs("comes/coming moves/moving slides/sliding rolls/rolling", "closer", "towards us", "towards the camera"),
        "approaches", "approaching",
    ),
    "away": (
        *_verbs("moves/moving goes/going slides/sliding rolls/rolling", "away", "into the distance", "away from us"),
        "leaves", "leaving",
    ),
}  # fmt: skip
CAMERAS: Forms = {
    "static": ("static camera", "the camera is still", "fixed camera", "static shot", "locked camera", "tripod shot"),
    "pan_left": (
        "camera pans left", "pan left", "the camera pans to the left", "the camera turns left", "camera panning left",
        "panning to the left",
    ),
    "pan_right": (
        "camera pans right", "pan right", "the camera pans to the right", "the camera turns right",
        "camera panning right", "panning to the right",
    ),
    "zoom_in": ("camera zooms in", "zoom in", "the camera zooms in", "zooming in", "slow zoom in", "zoom in on it"),
    "zoom_out": ("camera zooms out", "zoom out", "the camera zooms out", "zooming out", "slow zoom out"),
}  # fmt: skip
FORMS: Mapping[str, Forms] = {
    "floor": FLOORS, "sky": SKIES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "camera": CAMERAS,
}  # fmt: skip
HELD_OUT: Mapping[str, Forms] = {
    "colour": {
        "red": ("vermilion", "cherry"), "orange": ("pumpkin", "apricot"), "yellow": ("canary", "saffron"),
        "green": ("jade", "malachite"), "blue": ("cobalt", "sapphire"), "purple": ("amethyst", "aubergine"),
        "pink": ("fuchsia", "flamingo"), "white": ("ivory", "chalky"),
    },
    "shape": {
        "ball": ("spheroid", "bowling ball"), "cube": ("die", "hexahedron"), "cone": ("funnel",),
        "cylinder": ("drum", "canister"),
    },
    "floor": {
        "grass": ("on turf",), "sand": ("on the dunes",), "snow": ("on a glacier",),
        "water": ("on the ocean", "on a pond"), "wood": ("on parquet", "on timber"), "checker": ("on a draughtboard",),
    },
    "sky": {
        "day": ("in the afternoon",), "sunset": ("at twilight", "in the golden hour"), "night": ("at midnight",),
        "overcast": ("in gloomy weather", "under a leaden sky"),
    },
    "motion": {
        "left": ("heads west", "gliding leftward"), "right": ("heads east", "gliding rightward"),
        "bounce": ("springs",), "fall": ("plummets", "plunges"), "rise": ("ascends", "levitates"),
        "near": ("advances",), "away": ("retreats", "recedes"),
    },
    "camera": {
        "zoom_in": ("push in",), "zoom_out": ("pull back",), "pan_left": ("swivel left",),
        "pan_right": ("swivel right",),
    },
}  # fmt: skip
FILLERS = (
    "a cinematic shot of", "a video of", "a high quality video of", "a short clip of", "a beautiful scene with",
    "footage of", "a realistic render of", "a close view of", "an animation of",
)  # fmt: skip
TRAILERS = ("highly detailed", "soft light", "high quality", "cinematic", "beautiful colours", "4k", "smooth motion")
THINGS = ("object", "thing", "shape")
SILENT = """a an the of is are there and with it its that this in on at to one single some while as then which by
    for from please show shows showing me us make movie film picture image camera sky floor"""
# Said alone, these words still mean something; `read` falls back on them where no whole form is found.
ALONE: Mapping[str, tuple[str, str]] = {
    "left": ("motion", "left"), "leftwards": ("motion", "left"), "right": ("motion", "right"),
    "rightwards": ("motion", "right"), "closer": ("motion", "near"), "away": ("motion", "away"),
    "upwards": ("motion", "rise"), "rolling left": ("motion", "left"),
    "grass": ("floor", "grass"), "grassy": ("floor", "grass"), "lawn": ("floor", "grass"), "meadow": ("floor", "grass"),
    "sand": ("floor", "sand"), "sandy": ("floor", "sand"), "beach": ("floor", "sand"), "desert": ("floor", "sand"),
    "snow": ("floor", "snow"), "snowy": ("floor", "snow"), "winter": ("floor", "snow"), "water": ("floor", "water"),
    "lake": ("floor", "water"), "sea": ("floor", "water"), "wood": ("floor", "wood"), "wooden": ("floor", "wood"),
    "planks": ("floor", "wood"), "checkered": ("floor", "checker"), "checkerboard": ("floor", "checker"),
    "chessboard": ("floor", "checker"), "tiles": ("floor", "checker"), "tiled": ("floor", "checker"),
    "day": ("sky", "day"), "daylight": ("sky", "day"), "sunny": ("sky", "day"), "noon": ("sky", "day"),
    "sunshine": ("sky", "day"), "blue sky": ("sky", "day"), "dusk": ("sky", "sunset"), "dawn": ("sky", "sunset"),
    "evening": ("sky", "sunset"), "sunrise": ("sky", "sunset"), "stars": ("sky", "night"), "starry": ("sky", "night"),
    "moonlight": ("sky", "night"), "dark": ("sky", "night"), "cloudy": ("sky", "overcast"), "grey": ("sky", "overcast"),
    "grey sky": ("sky", "overcast"), "orange sky": ("sky", "sunset"), "clouds": ("sky", "overcast"),
    "grey clouds": ("sky", "overcast"), "starry sky": ("sky", "night"), "overcast sky": ("sky", "overcast"),
    "green field": ("floor", "grass"), "black and white tiles": ("floor", "checker"),
}  # fmt: skip
SIMPLE = Grammar(FORMS, HELD_OUT, ALONE, (), ())

# From here on: what the full level adds. Where a word of the first level means something narrower now, it moves.
_TRAVELS = "moves/moving travels/travelling goes/going drifts/drifting"
ROLLS, SLIDES = ("rolls", "rolling"), ("slides", "sliding", "glides", "gliding", "skids", "skidding")
_LEFT = ("to the left", "left", "leftwards", "from right to left")
_RIGHT = ("to the right", "right", "rightwards", "from left to right")
_ANY_TRAVEL = f"{_TRAVELS} rolls/rolling slides/sliding glides/gliding skids/skidding"
_FULL_MOTIONS: Forms = {
    **MOTIONS,
    "left": _verbs(_ANY_TRAVEL, *_LEFT),
    "right": _verbs(_ANY_TRAVEL, *_RIGHT),
    "bounce": (
        *_verbs("bounces/bouncing", "", "up and down"), *_verbs("hops/hopping jumps/jumping", "up and down"),
    ),
    "jump": _verbs("jumps/jumping leaps/leaping hops/hopping", "", "once", "high"),
    "spin": _verbs("spins/spinning turns/turning twirls/twirling rotates/rotating", "", "on the spot"),
    "orbit": (
        *_verbs("circles/circling orbits/orbiting", ""),
        *_verbs("goes/going runs/running moves/moving", "in a circle", "in circles"),
        *_verbs("circles/circling goes/going orbits/orbiting revolves/revolving", "around"),
    ),
    "collide": (
        *_verbs("collides/colliding", "with"), *_verbs("bumps/bumping crashes/crashing runs/running", "into"),
        "hits", "hitting",
    ),
    "hide": _verbs("passes/passing hides/hiding disappears/disappearing goes/going slips/slipping", "behind"),
}  # fmt: skip
_FULL_FLOORS: Forms = {
    **FLOORS,
    "checker": tuple(form for form in FLOORS["checker"] if "tiled" not in form),
    "tiles": (
        "on blue tiles", "on tiles", "on a tiled floor", "over a tiled floor", "on turquoise tiles",
        "on a bathroom floor", "on glazed tiles",
    ),
    "stone": (
        "on stone", "on a stone floor", "on paving stones", "on cobblestones", "on flagstones", "over stone slabs",
        "in a stone courtyard",
    ),
    "ice": ("on ice", "on the ice", "on a frozen lake", "over ice", "on an ice rink"),
}  # fmt: skip
_FULL_SKIES: Forms = {
    **SKIES,
    "sunset": tuple(form for form in SKIES["sunset"] if form not in ("at dawn", "at sunrise")),
    "dawn": ("at dawn", "at sunrise", "at daybreak", "in the early morning", "under a pink sky"),
}
_FULL_CAMERAS: Forms = {
    **CAMERAS,
    "tilt_up": ("camera tilts up", "tilt up", "the camera tilts up", "the camera looks up", "tilting up"),
    "tilt_down": ("camera tilts down", "tilt down", "the camera tilts down", "the camera looks down", "tilting down"),
    "dolly_in": (
        "camera moves in", "dolly in", "the camera moves forward", "the camera drives in", "camera dollies in",
    ),
    "dolly_out": (
        "camera moves out", "dolly out", "the camera moves back", "the camera drives back", "camera dollies out",
    ),
    "orbit_left": (
        "camera orbits left", "orbit left", "the camera orbits to the left", "arc left",
        "the camera circles to the left",
    ),
    "orbit_right": (
        "camera orbits right", "orbit right", "the camera orbits to the right", "arc right",
        "the camera circles to the right",
    ),
}  # fmt: skip
_FULL_COLOURS: Forms = {
    **COLOURS,
    "black": ("black", "jet black", "coal black", "ebony"),
    "grey": ("grey", "gray", "slate grey", "ash grey"),
    "brown": ("brown", "chocolate", "chestnut", "coffee brown"),
    "cyan": ("cyan", "turquoise", "aqua", "bright cyan"),
}
_FULL_SHAPES: Forms = {
    **SHAPES,
    "cylinder": ("cylinder", "can", "barrel", "tube"),
    "egg": ("egg", "ovoid", "oval"),
    "brick": ("brick", "bar", "flat box"),
    "disc": ("disc", "disk", "puck", "coin", "plate"),
    "pillar": ("pillar", "column", "post", "pole"),
    "torus": ("torus", "ring", "donut", "doughnut", "hoop"),
}
_COMPLETE_FORMS: Mapping[str, Forms] = {
    "floor": _FULL_FLOORS, "sky": _FULL_SKIES, "colour": _FULL_COLOURS, "shape": _FULL_SHAPES,
    "motion": _FULL_MOTIONS, "camera": _FULL_CAMERAS,
    "weather": {
        "clear": ("in clear weather", "in clear air", "without a drop of rain"),
        "fog": ("in the fog", "in fog", "in thick fog", "foggy", "in the mist", "on a misty day"),
        "snowing": (
            "while it snows", "snowing", "in falling snow", "in a snowstorm", "with snowflakes falling",
            "in a blizzard",
        ),
        "raining": (
            "in the rain", "while it rains", "raining", "on a rainy day", "in a downpour", "in pouring rain",
        ),
    },
    "size": {"small": ("small", "tiny", "little", "mini"), "big": ("big", "large", "huge", "giant")},
    "pattern": {
        "stripes": ("striped", "stripy", "banded"),
        "dots": ("dotted", "spotted", "polka dot"),
        "checks": ("checked", "chequered", "harlequin"),
        "two_tone": ("two-tone", "two-coloured", "half and half"),
    },
    "material": {
        "matte": ("matte", "dull", "unpolished"),
        "shiny": ("shiny", "glossy", "polished", "lacquered"),
        "metal": ("metal", "metallic", "chrome", "steel"),
        "glass": ("glass", "transparent", "see-through", "crystal"),
    },
    "relation": {
        "left": ("to the left of", "left of", "on the left of"),
        "right": ("to the right of", "right of", "on the right of"),
        "behind": ("behind", "at the back of", "farther off than"),
        "front": ("in front of", "nearer than", "this side of"),
    },
    "count": {"two": ("two objects", "two things", "a pair of objects"), "three": ("three objects", "three things")},
}  # fmt: skip
_COMPLETE_HELD_OUT: Mapping[str, Forms] = {
    "colour": {
        **HELD_OUT["colour"], "black": ("onyx", "inky"), "grey": ("pewter",), "brown": ("cocoa", "walnut"),
        "cyan": ("aquamarine",),
    },
    "shape": {
        **HELD_OUT["shape"], "egg": ("ellipsoid",), "brick": ("cuboid",), "disc": ("discus",),
        "pillar": ("obelisk", "mast"), "torus": ("bagel", "wreath"),
    },
    "floor": {**HELD_OUT["floor"], "tiles": ("on mosaic",), "stone": ("on granite",), "ice": ("on black ice floes",)},
    "sky": {**HELD_OUT["sky"], "dawn": ("at first light", "at cockcrow")},
    "motion": {**HELD_OUT["motion"], "spin": ("whirls", "pirouettes"), "jump": ("vaults",)},
    "camera": {
        **HELD_OUT["camera"], "tilt_up": ("crane the view upward",), "dolly_in": ("creep nearer",),
        "orbit_left": ("sweep round leftward",), "orbit_right": ("sweep round rightward",),
    },
    "weather": {
        "fog": ("in a murky haze",), "snowing": ("in a flurry",), "raining": ("in a drizzle", "in a cloudburst"),
    },
    "size": {"small": ("miniature", "wee"), "big": ("enormous", "massive")},
    "pattern": {"stripes": ("zebra",), "dots": ("speckled",), "checks": ("tartan",), "two_tone": ("bicoloured",)},
    "material": {
        "shiny": ("gleaming",), "metal": ("iron", "brass"), "glass": ("translucent",), "matte": ("chalk-dry",),
    },
    "relation": {}, "count": {},
}  # fmt: skip
COMPLETE = Grammar(
    _COMPLETE_FORMS,
    _COMPLETE_HELD_OUT,
    {
        **ALONE,
        "dawn": ("sky", "dawn"), "sunrise": ("sky", "dawn"), "daybreak": ("sky", "dawn"), "pink sky": ("sky", "dawn"),
        "grey": ("colour", "grey"), "tiles": ("floor", "tiles"), "tiled": ("floor", "tiles"),
        "blue tiles": ("floor", "tiles"), "stone": ("floor", "stone"), "cobblestones": ("floor", "stone"),
        "ice": ("floor", "ice"), "icy": ("floor", "ice"), "rain": ("weather", "raining"),
        "rainy": ("weather", "raining"), "fog": ("weather", "fog"), "mist": ("weather", "fog"),
        "misty": ("weather", "fog"), "snowfall": ("weather", "snowing"), "snowflakes": ("weather", "snowing"),
        "stripes": ("pattern", "stripes"), "dots": ("pattern", "dots"), "checks": ("pattern", "checks"),
        "two": ("count", "two"), "three": ("count", "three"),
        "rolling": ("manner", "roll"), "rolls": ("manner", "roll"),
        "sliding": ("manner", "slide"), "slides": ("manner", "slide"),
    },
    ("and", "while", "beside"),
    ("with", "into", "behind", "around", "hits", "hitting"),
)  # fmt: skip
