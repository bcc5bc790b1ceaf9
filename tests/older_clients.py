"""A program for the vendors' clients of a year ago: it is run by their own Python, and knows nothing of us."""

import sys
import time

import lumaai
import openai
import runwayml

WORDS = "a red ball rolls to the right on grass"


def waited(ask, over):  # type: ignore[no-untyped-def]
    """What is asked for, once it is over."""
    until = time.monotonic() + 60
    while not over(seen := ask()):
        assert time.monotonic() < until, seen
        time.sleep(0.05)
    return seen


def sora(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0)
    made = client.videos.create(prompt=WORDS, model="sora-2", seconds="1", size="256x256")  # type: ignore[arg-type]
    assert (made.status, made.seconds, made.size) == ("queued", "1", "256x256"), made
    done = client.videos.poll(made.id, poll_interval_ms=50)
    assert (done.status, done.progress) == ("completed", 100), done
    for variant, start in (("video", b"ftyp"), ("thumbnail", b"RIFF"), ("spritesheet", b"\xff\xd8")):
        assert start in client.videos.download_content(made.id, variant=variant).read()[:8]  # type: ignore[arg-type]
    remix = client.videos.remix(made.id, prompt="a blue ball rolls to the right on snow")
    assert (remix.remixed_from_video_id, remix.size) == (made.id, "256x256"), remix
    assert client.videos.poll(remix.id, poll_interval_ms=50).status == "completed"
    assert [video.id for video in client.videos.list(limit=1)] == [remix.id, made.id]
    with_file = client.videos.create(prompt=WORDS, input_reference=("a.gif", GIF, "image/gif"))
    assert client.videos.delete(with_file.id).deleted
    try:
        client.videos.retrieve(with_file.id)
        raise AssertionError("it is still there")
    except openai.NotFoundError as error:
        assert error.code


def dream_machine(url: str) -> None:
    client = lumaai.LumaAI(base_url=f"{url}/luma/dream-machine/v1", auth_token="local", max_retries=0)
    made = client.generations.create(model="ray-2", prompt=WORDS, duration="1s", resolution="360p", aspect_ratio="1:1")
    assert made.state in ("queued", "dreaming"), made
    done = waited(lambda: client.generations.get(made.id), lambda seen: seen.state in ("completed", "failed"))
    assert done.state == "completed" and done.assets.video, done
    client.generations.delete(made.id)


def runway(url: str) -> None:
    client = runwayml.RunwayML(base_url=f"{url}/runway", api_key="local", max_retries=0)
    made = client.text_to_video.create(model="gen4.5", prompt_text=WORDS, ratio="320:192", duration=2)  # type: ignore
    done = waited(lambda: client.tasks.retrieve(made.id), lambda seen: seen.status in ("SUCCEEDED", "FAILED"))
    assert done.status == "SUCCEEDED" and done.output[0].startswith(url), done
    client.tasks.delete(made.id)


GIF = bytes.fromhex("47494638396101000100800000ff0000ffffff2c00000000010001000002024401003b")

if __name__ == "__main__":
    {"openai": sora, "lumaai": dream_machine, "runwayml": runway}[sys.argv[1]](sys.argv[2])
