"""A part of a film is made anew; the rest stays."""

from cinecanvas import Store, generate, retake, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
request = retake(clip, "a red ball bounces on grass at sunset", start=0.6, end=1.6, seed=1)
for event in generate(request, out="retake.mp4", store=store):
    print(type(event).__name__)
