"""A film whose end leads back to its beginning."""

from cinecanvas import Store, generate, loop

store = Store.at("store")
request = loop("a red ball bounces on grass at sunset", seconds=2, seed=1)
for event in generate(request, out="loop.mp4", store=store):
    print(type(event).__name__)
