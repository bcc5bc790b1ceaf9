"""A film told again in other words; keep says how much of it stays."""

from cinecanvas import Store, generate, remix, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
request = remix(clip, "a blue ball rolls to the right on grass at sunset", keep=0.2, seed=1)
for event in generate(request, out="remix.mp4", store=store):
    print(type(event).__name__)
