"""Two seconds lead from one picture to another."""

from cinecanvas import Store, generate, interpolate, take, text_to_image

store = Store.at("store")
list(generate(text_to_image("a blue cube on snow during the day", seed=1), out="cube.png"))
cube = take(store, "cube.png")
list(generate(text_to_image("a blue cube on snow at sunset", seed=1), out="evening.png"))
request = interpolate(cube, take(store, "evening.png"), "a blue cube rests on snow", seconds=2, seed=1)
for event in generate(request, out="interpolate.mp4", store=store):
    print(type(event).__name__)
