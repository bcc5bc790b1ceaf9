"""Pictures at their seconds, and everything between them."""

from cinecanvas import Store, generate, keyframes, take, text_to_image

store = Store.at("store")
list(generate(text_to_image("a blue cube on snow during the day", seed=1), out="cube.png"))
cube = take(store, "cube.png")
request = keyframes([(cube, 0.0), (cube, 1.5)], "a blue cube bounces on snow during the day", seed=1)
for event in generate(request, out="keyframes.mp4", store=store):
    print(type(event).__name__)
