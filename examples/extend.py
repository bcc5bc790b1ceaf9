"""A film becomes longer; with backward=True it begins earlier."""

from cinecanvas import Store, extend, generate, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
request = extend(clip, "a red ball rolls to the right on grass at sunset", seconds=2, seed=1)
for event in generate(request, out="extend.mp4", store=store):
    print(type(event).__name__)
