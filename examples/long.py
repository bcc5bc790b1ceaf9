"""Half a minute in windows that go on in latents; from the tenth second on, other words."""

from cinecanvas import Store, generate, text_to_video
from cinecanvas.request import Cue

night = Cue(at=10, prompt="a red ball bounces on grass at night")
request = text_to_video("a red ball bounces on grass at sunset", seconds=30, cues=(night,), seed=3)
for event in generate(request, out="long.mp4", store=Store.at("store")):  # stopped and run again, it goes on
    print(type(event).__name__)
