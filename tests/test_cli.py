"""The command as its users meet it: in a process of its own, with bad input, signals and closed pipes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cinecanvas import cli
from cinecanvas.media.video import info

CINE = [sys.executable, "-m", "cinecanvas.cli"]
TOY = ["--model", "toy", "--quality", "draft", "--seconds", "0.5"]
DOCS = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place


def cine(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CINE, *args], capture_output=True, text=True, timeout=120)


def called(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """In this process, which is quicker where no signal or import is at stake."""
    code = cli.main(args)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from cinecanvas import cli; cli.main(['--help']); cli.main(['generate', '--help']);"
        "print([m for m in ('torch', 'numpy', 'av', 'PIL', 'obstore') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert shown.stdout.splitlines()[-1] == "[]" and "generate" in shown.stdout

    def cpu() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        cine("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu() for _ in range(3)) < 0.5


def test_version_is_the_package_s() -> None:
    from cinecanvas import __version__

    assert cine("--version").stdout == f"cinecanvas {__version__}\n"


def test_generate_makes_the_file_and_says_what_it_did(home: Path) -> None:
    done = cine("generate", "a red fox", "-o", "fox.mp4", "--size", "64x48", "--seed", "3", *TOY)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (info("fox.mp4").width, info("fox.mp4").height) == (64, 48)
    for said in ("fox.mp4  64x48", "seed 3", "denoise", "write", "understood: red (colour red)", "ignored: fox"):
        assert said in done.stdout
    assert "generated at 24x16" in done.stderr and "public model such as Wan 2.2" in done.stderr
    assert [path.name for path in home.iterdir()] == ["fox.mp4"]


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "generate", "red", "-o", "a.mp4", "--count", "2", "--json", *TOY)
    said = json.loads(out)
    assert code == 0 and err == "" and [video["file"] for video in said["videos"]] == ["a-1.mp4", "a-2.mp4"]
    assert said["understood"]["values"] == {"colour": "red"} and said["seconds"]["total"] > 0


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "generate", "red", "-o", "a.gif", "-q", *TOY) == (0, "", "")


def test_without_a_name_the_prompt_names_the_file_and_nothing_is_overwritten(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert called(capsys, "generate", "Über/../ red!", *TOY)[0] == 0
    assert sorted(path.name for path in home.iterdir()) == ["uber-red-2.mp4", "uber-red.mp4"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", ""], "prompt is empty"),
        (["generate", "x" * 40_000], "40,000 characters"),
        (["generate", "a\x1bb"], "control character U+001B"),
        (["generate", "a", "--seconds", "0"], "seconds = 0"),
        (["generate", "a", "--seconds", "-1"], "seconds = -1"),
        (["generate", "a", "--seconds", "nan"], "seconds = nan"),
        (["generate", "a", "--seconds", "1e12"], "seconds = 1e+12"),
        (["generate", "a", "--seconds", "31", "--model", "toy"], "at most 30 s"),
        (["generate", "a", "--seconds", "soon"], "--seconds"),
        (["generate", "a", "--fps", "nan"], "fps = nan"),
        (["generate", "a", "--fps", "1e9"], "fps = 1e+09"),
        (["generate", "a", "--size", "0x0"], "0x0 px"),
        (["generate", "a", "--size", "-64x64"], "-64x64"),
        (["generate", "a", "--size", "999999x999999"], "999999x999999 px"),
        (["generate", "a", "--size", "nanxnan"], "nanxnan"),
        (["generate", "a", "--size", "4096x16", "--model", "toy"], "shapes are"),
        (["generate", "a", "--seed", "-1"], "seed -1"),
        (["generate", "a", "--count", "0"], "0 videos"),
        (["generate", "a", "--quality", "superb"], "quality"),
        (["generate", "a", "--model", "sora"], "no model 'sora'"),
        (["generate", "a", "--model", "toy", "-o", "a.xyz"], "unknown ending"),
        (["generate", "a", "--model", "toy", "-o", "missing/a.mp4"], "missing"),
        (["generate", "a", "--model", "toy", "-o", "/dev/null"], "null"),
        (["generate"], "prompt"),
        (["generate", "a", "b"], "b"),
        (["generate", "a", "--sizes", "64x64"], "--size"),
        (["frobnicate"], "frobnicate"),
        (["plan", ""], "prompt is empty"),
        (["models", "sora"], "no model 'sora'"),
        (["train", "wan"], "'wan'"),
        (["train", "diorama", "--preset", "abacus"], "abacus"),
        (["train", "diorama", "--resume", "-o", "nowhere"], "nowhere"),
        (["train", "diorama", "--minutes", "nan"], "nan"),
        (["world", "-o", "a.xyz"], "a.xyz"),
        (["world", "-o", "a.mp4", "--level", "ninth"], "ninth"),
        (["world", "-o", "a.mp4", "--size", "16:9"], "16:9"),
        (["world", "-o", "a.mp4", "--seconds", "inf"], "inf"),
        (["world", "-o", "a.png", "--count", "0"], "0 videos"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, *args)
    assert code == 2 and out == "" and said in err
    assert err.startswith("cine: ") and err.count("\n") == 1 and len(err) < 400
    assert list(home.iterdir()) == []
    code, out, err = called(capsys, *args, "--json")
    assert code == 2 and err == "" and said in json.loads(out)["error"]["message"]


def test_a_broken_prompt_from_the_shell_is_refused() -> None:
    done = subprocess.run([*CINE, "generate", b"caf\xe9"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "broken UTF-8" in done.stderr and done.stderr.count("\n") == 1


def test_a_full_disk_leaves_one_line_and_no_file(home: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
    run = "from cinecanvas import cli; sys.exit(cli.main(sys.argv[1:]))"
    args = ["generate", "red", "-o", "a.mp4", "--size", "640x480", *TOY]
    done = subprocess.run([sys.executable, "-c", limit + run, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("cine: Cannot write a.mp4")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code", "phase", "asked"),
    [
        (signal.SIGINT, 130, "denoise", ["--seconds", "30", "--count", "50", "--quality", "best"]),
        (signal.SIGTERM, 143, "denoise", ["--seconds", "30", "--count", "50", "--quality", "best"]),
        (
            signal.SIGINT,
            130,
            "denoise",
            ["--seconds", "10", "--fps", "60", "--quality", "draft", "--size", "3840x2160"],
        ),
    ],
)
def test_a_signal_stops_the_run_and_leaves_nothing(
    number: int, code: int, phase: str, asked: list[str], home: Path
) -> None:
    long = ["generate", "red", "-o", "a.mp4", "--model", "toy", *asked]
    # a group of its own, so that whatever it might leave running can be counted
    process = subprocess.Popen(
        [*CINE, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(phase):
            break
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code and out == ""
    assert err.splitlines()[-1] == "cine: Stopped. Nothing half-written is left behind."
    assert "Traceback" not in err and list(home.iterdir()) == []
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_film_needs_no_store_and_a_laid_picture_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "blocked").write_text("")
    assert cli.main(["image", "red", "-o", "a.png", "--model", "toy"]) == 0
    monkeypatch.setenv("CINECANVAS_HOME", str(home / "blocked" / "home"))
    assert cli.main(["generate", "red", "-o", "b.mp4", *TOY]) == 0 and (home / "b.mp4").exists()
    assert cli.main(["animate", "a.png", "red", "-o", "c.mp4", *TOY]) == 2


def test_a_closed_pipe_is_quiet() -> None:
    process = subprocess.Popen([*CINE, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read() and "BrokenPipe" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)


def test_a_bug_is_one_line_and_a_traceback_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "text_to_video", lambda *args, **options: 1 / 0)
    code, out, err = called(capsys, "plan", "a")
    assert code == 1 and out == "" and "bug in cinecanvas: ZeroDivisionError" in err and err.count("\n") == 1
    monkeypatch.setenv("CINECANVAS_DEBUG", "1")
    assert "Traceback" in called(capsys, "plan", "a")[2]


def test_plan_costs_nothing_and_loads_no_torch() -> None:
    probe = "import sys; from cinecanvas import cli; cli.main(sys.argv[1:]); print('torch' in sys.modules)"
    args = ["plan", "a red ball", "--model", "toy", "--size", "1280x720", "--json"]
    done = subprocess.run([sys.executable, "-c", probe, *args], capture_output=True, text=True, timeout=60)
    said, torch = done.stdout.splitlines()
    made = json.loads(said)
    assert torch == "False" and (made["width"], made["height"]) == (1280, 720)
    assert made["seconds"] > 0 and made["bytes"] > 0 and made["cells"] > 0 and len(made["keys"]) == 1
    assert made["notes"] == ["generated at 24x16, cut to 24x14, resized to 1280x720"]


def test_plan_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "plan", "a red ball", "--model", "toy", "--count", "2")
    assert code == 0 and "pass 2" in out and "understood: red" in out and "of memory" in out


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "models")
    assert code == 0 and "toy" in out and "Wan 2.2" in out
    assert json.loads(called(capsys, "models", "--json")[1])["models"]
    assert "knows colour" in called(capsys, "models", "toy")[1]
    assert json.loads(called(capsys, "models", "toy", "--json")[1])["name"] == "toy"


def test_a_film_goes_from_verb_to_verb(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def makes(frames: int, *args: str) -> None:
        code, _, err = called(capsys, *args, "--model", "toy", "--quality", "draft", "--seed", "3")
        assert code == 0, err
        assert info(args[args.index("-o") + 1]).frames == frames

    makes(1, "image", "a red dot", "-o", "dot.png")
    makes(8, "animate", "dot.png", "red", "-o", "a.mp4", "--seconds", "1")
    makes(12, "extend", "a.mp4", "red", "-o", "b.mp4", "--seconds", "0.5")
    makes(8, "retake", "a.mp4", "red", "--from", "0.25", "--to", "0.5", "-o", "c.mp4")
    makes(8, "outpaint", "a.mp4", "red", "--to", "3:2", "-o", "d.mp4")
    makes(8, "remix", "a.mp4", "blue", "--keep", "0.5", "-o", "e.mp4")
    makes(20, "join", "a.mp4", "c.mp4", "red", "--seconds", "0.5", "-o", "f.mp4")
    makes(4, "interpolate", "dot.png", "dot.png", "red", "--seconds", "0.5", "-o", "g.mp4")
    makes(8, "keyframes", "red", "--picture", "0:dot.png", "--picture", "0.5:dot.png", "--seconds", "1", "-o", "h.mp4")
    code, _, err = called(capsys, "replay", "b.mp4", "-o", "again.mp4")
    assert code == 0, err
    assert Path("again.mp4").read_bytes() == Path("b.mp4").read_bytes()


def test_a_film_is_a_file_or_a_digest_or_a_url(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cinecanvas.media import fetch
    from cinecanvas.media.intake import take

    toy = ["--model", "toy", "--quality", "draft", "--seed", "3"]
    assert called(capsys, "image", "red", "-o", "dot.png", *toy)[0] == 0
    first = json.loads(called(capsys, "animate", "dot.png", "red", "-o", "a.mp4", *TOY, "--seed", "3", "--json")[1])
    (made,), (dot,) = first["digests"], [clip["media"] for clip in first["request"]["clips"]]
    opened = []
    monkeypatch.setattr(fetch, "fetch", lambda store, url: opened.append(url) or take(store, home / "dot.png"))
    url = "https://example.org/dot.png?a:b"
    for number, (asked, frames) in enumerate(
        {
            ("extend", made, "red", "--seconds", "0.5"): 8,
            ("join", "a.mp4", made, "red", "--seconds", "0.5"): 12,
            ("animate", dot, "red", "--seconds", "1"): 8,
            ("inpaint", made, dot, "red"): 4,
            ("keyframes", "red", "--picture", f"0:{dot}", "--picture", f"0.5:{url}", "--seconds", "1"): 8,
        }.items()
    ):
        code, _, err = called(capsys, *asked, "-o", f"{number}.mp4", *toy)
        assert code == 0, err
        assert info(f"{number}.mp4").frames == frames
    assert opened == [url]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["animate", "none.png", "red"], "There is no file none.png"),
        (["animate", "", "red"], "There is no file"),
        (["animate", "sha256:abc", "red"], "not the digest of an asset"),
        (["extend", "sha256:" + "0" * 64, "red"], "There is no asset sha256:"),
        (["animate", "http://127.0.0.1/a.png", "red"], "127.0.0.1 is not on the public internet"),
        (["loop", "red", "--of", "file:///etc/passwd"], "http:// and https:// URLs are opened"),
        (["keyframes", "red", "--picture", "0:ftp://a.example.org/a.png"], "A URL that begins with ftp: was given"),
        (["keyframes", "red", "--picture", "soon:a.png"], "A keyframe is SECOND:FILE"),
        (["generate", "red", "--at", "later"], "It is SECOND:WORDS"),
        (["generate", "red", "--at", "5:blue", "--at", "2:green"], "out of order"),
        (["outpaint", "none.png", "red", "--to", "16:9", "--place", "left"], "There is no file"),
        (["replay", "none.json"], "There is no file none.json"),
    ],
)
def test_a_verb_refuses_in_one_line(args: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, *args)
    assert code == 2 and not out and said in err and err.count("\n") == 1


def test_world_renders_a_captioned_scene_and_a_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "world", "-o", "a.mp4", "--size", "32x32", "--seed", "3", "--seconds", "0.5")
    assert code == 0 and info("a.mp4").frames == 4 and info("a.mp4").metadata["title"] == out.splitlines()[0]
    code, out, _ = called(capsys, "world", "-o", "a.png", "--size", "32x32", "--count", "2", "--json")
    rows = json.loads(out)["scenes"]
    assert code == 0 and info("a.png").frames == 1 and len(rows) == 2
    assert rows[0]["caption"] and rows[0]["spec"]["shape"]


def reference() -> str:
    """The page of all verbs and flags, drawn from the command itself: `python tests/test_cli.py` writes it anew."""
    lines = [
        "# `cine`: every verb and flag",
        "",
        "Drawn from the command by `python tests/test_cli.py`; a test compares.",
    ]
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, verb in verbs.items():
        flags = [p for p in verb.params if p.param_type_name == "option" and p.name != "help"]
        words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in verb.params if p not in flags]
        lines += ["", f"## `{' '.join(['cine', name, *words])}`", "", verb.help, ""]
        lines += [f"- `{p.name.upper()}`: {p.help}" for p in verb.params if p.param_type_name == "argument"]
        lines += [f"- {', '.join(f'`{o}`' for o in p.opts)}{_default(p.default)}: {p.help}" for p in flags]
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    return "" if value in (None, "", False) or callable(value) else f" (`{value}`)"


def test_the_reference_is_that_of_the_command() -> None:
    assert DOCS.read_text() == reference()


if __name__ == "__main__":
    DOCS.write_text(reference())
