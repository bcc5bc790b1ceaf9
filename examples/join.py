"""Two films and a transition that leads from one into the other."""

from cinecanvas import Store, generate, join, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
list(generate(text_to_video("a red ball bounces on grass at sunset", seconds=2, seed=4), out="bounce.mp4"))
request = join(clip, take(store, "bounce.mp4"), "a red ball on grass at sunset", seconds=1, seed=1)
for event in generate(request, out="join.mp4", store=store):
    print(type(event).__name__)
