"""A film at twice its size, by a model that can fill a canvas of that size; the Card of each says whether it can."""

from cinecanvas import Store, generate, take, text_to_video, upscale

store = Store.at("store")
small = text_to_video("red and blue", model="toy", seconds=1, width=16, height=16, seed=3)
list(generate(small, out="small.mp4"))
request = upscale(take(store, "small.mp4"), "red and blue", times=2, keep=0.7, model="toy", seed=1)
for event in generate(request, out="upscale.mp4", store=store):
    print(type(event).__name__)
