"""What the mask leaves black is painted anew; white is kept."""

from PIL import Image, ImageDraw

from cinecanvas import Store, generate, inpaint, take, text_to_video

store = Store.at("store")
list(generate(text_to_video("a red ball rolls to the right on grass at sunset", seconds=2, seed=3), out="roll.mp4"))
clip = take(store, "roll.mp4")
size = clip.width, clip.height
mask = Image.new("L", size, "white")
ImageDraw.Draw(mask).rectangle((0, 0, size[0], size[1] // 3), fill="black")
mask.save("mask.png")
request = inpaint(clip, take(store, "mask.png"), "a red ball on grass at night", seed=1)
for event in generate(request, out="inpaint.mp4", store=store):
    print(type(event).__name__)
