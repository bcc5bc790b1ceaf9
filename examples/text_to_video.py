"""Words in, video out."""

from cinecanvas import generate, text_to_video

request = text_to_video("a red ball bounces on grass at sunset", seconds=2, shape="16:9", seed=7)
for event in generate(request, out="text_to_video.mp4"):
    print(type(event).__name__)
