"""A picture moves; with last=True it is where everything leads to."""

from cinecanvas import Store, animate, generate, take, text_to_image

store = Store.at("store")
list(generate(text_to_image("a blue cube on snow during the day", seed=1), out="cube.png"))
cube = take(store, "cube.png")
request = animate(cube, "a blue cube slides to the left on snow during the day", seed=1)
for event in generate(request, out="animate.mp4", store=store):
    print(type(event).__name__)
