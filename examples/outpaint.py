"""A film in another shape: it stays whole, and what lies beside it is painted."""

from cinecanvas import Store, generate, outpaint, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
request = outpaint(clip, "a red ball rolls to the right on grass at sunset", to="16:9", seed=1)
for event in generate(request, out="outpaint.mp4", store=store):
    print(type(event).__name__)
