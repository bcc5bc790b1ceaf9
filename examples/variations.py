"""What a file was made from, made again with other seeds: the same words, the same canvas, other films."""

from pathlib import Path

from cinecanvas import generate, text_to_video, variations
from cinecanvas.generate import request_of

list(generate(text_to_video("a red ball bounces on grass at sunset", seconds=1, seed=3), out="variations.mp4"))
request = variations(request_of(Path("variations.mp4")), count=2, seed=11)
for event in generate(request, out="again.mp4"):
    print(type(event).__name__)
