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
from typing import Any

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
        "print([m for m in ('torch', 'numpy', 'av', 'PIL', 'obstore', 'sqlalchemy', 'alembic') if m in sys.modules])"
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
    assert "generated at 24x16" in done.stderr and "A public model would show any subject" in done.stderr
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
        (["plan", "a", "--steps", "0"], "0 steps"),
        (["plan", "a", "--guided", "0.1-0.9"], "0.1,0.9"),
        (["plan", "a", "--model", "ltx-video-0.9.7-distilled", "--steps", "12"], "distilled to 8 steps"),
        (["models", "show", "sora"], "no model 'sora'"),
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


def test_plan_shows_the_recipe_that_an_expert_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "a red ball", "--steps", "12", "--guidance", "6", "--guided", "0.1,0.9", "--rescale", "0.7"]
    assert "12 steps of dpm, guidance 6 at noise 0.1 to 0.9 rescaled by 0.7" in called(capsys, *asked)[1]
    made = json.loads(called(capsys, *asked, "--json")[1])
    recipe = {"steps": 12, "guidance": 6.0, "guided_from": 0.1, "guided_to": 0.9, "rescale": 0.7}
    assert recipe.items() <= made["recipe"].items()
    assert (made["request"]["steps"], made["request"]["guided"]) == (12, [0.1, 0.9])


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "models")
    assert code == 0 and "toy" in out and "wan2.2-ti2v-5b" in out
    assert json.loads(called(capsys, "models", "--json")[1])["models"]
    assert "knows colour" in called(capsys, "models", "show", "toy")[1]
    assert json.loads(called(capsys, "models", "show", "toy", "--json")[1])["name"] == "toy"


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


KEYS, JOBS = ["keys", "make", "alice"], ["jobs", "list"]


def accepted(database: str = "") -> list[str]:
    """Two jobs in the queue of this home."""
    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.order import order
    from cinecanvas.jobs.queue import Queue
    from cinecanvas.settings import settings

    at = Database.at(database or settings().database)
    at.migrate()
    asked = order("text_to_video", prompt="red", seed=1)
    return [Queue(at).submit(asked, model="toy").id for _ in range(2)]


def test_a_key_is_made_listed_changed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    made = json.loads(called(capsys, *KEYS, "--scope", "read", "--running", "2", "--json")[1])
    assert made["key"].startswith("cine-") and (made["scopes"], made["quota"]["running"]) == (["read"], 2)
    code, out, _ = called(capsys, "keys", "list")
    assert code == 0 and made["id"] in out and "running 2" in out and made["key"] not in out
    code, out, _ = called(capsys, "keys", "change", "alice", "--name", "bob", "--credits", "9", "--json")
    assert code == 0 and (json.loads(out)["name"], json.loads(out)["quota"]["credits"]) == ("bob", 9)
    assert called(capsys, "keys", "revoke", made["id"][:8])[0] == 0
    assert called(capsys, "keys", "list")[1] == "There are no keys.\n"
    assert "revoked" in called(capsys, "keys", "list", "--revoked")[1]


def test_a_key_is_printed_alone_so_that_a_script_can_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    code, out, err = called(capsys, *KEYS)
    assert code == 0 and err == "" and out.startswith("cine-") and out.count("\n") == 1


def test_jobs_are_listed_shown_moved_paused_and_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    first, second = accepted()

    def order_of() -> list[str]:
        from cinecanvas.jobs.database import Database
        from cinecanvas.jobs.queue import Queue
        from cinecanvas.settings import settings

        return [job.id for job in Queue(Database.at(settings().database)).waiting()]

    assert called(capsys, "jobs", "move", second, "--before", first)[0] == 0 and order_of() == [second, first]
    assert called(capsys, "jobs", "priority", first, "5")[0] == 0 and order_of() == [first, second]
    assert "paused" in called(capsys, "jobs", "pause", first)[1]
    assert "paused" not in called(capsys, "jobs", "resume", first)[1]
    assert json.loads(called(capsys, "jobs", "cancel", first, "--json")[1])["state"] == "cancelled"
    (listed,) = json.loads(called(capsys, "jobs", "list", "--state", "queued", "--json")[1])["jobs"]
    assert listed["id"] == second and "text_to_video" in called(capsys, "jobs", "show", second)[1]


def test_a_job_is_watched_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.job import Outcome
    from cinecanvas.jobs.queue import Queue
    from cinecanvas.settings import settings

    first, second = accepted()
    queue = Queue(Database.at(settings().database))
    claim = queue.claim("worker")
    assert claim is not None
    queue.tell(claim, "note", {"text": "it is red"}, phase="denoise", step=1, steps=4, eta=2.0)
    watching = subprocess.Popen(
        [*CINE, "jobs", "watch", first], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stderr is not None
    assert [watching.stderr.readline() for _ in range(2)] == ["denoise\n", "note: it is red\n"]
    queue.finish(claim, "succeeded", outcome=Outcome(assets=()))
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 0 and err == "succeeded\n" and first in out
    queue.cancel(second)
    code, out, err = called(capsys, "jobs", "watch", second, "--json")
    assert code == 1 and err == "" and json.loads(out)["state"] == "cancelled"


def test_usage_and_the_audit_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.job import Outcome
    from cinecanvas.jobs.queue import Queue
    from cinecanvas.settings import settings

    assert called(capsys, "jobs", "usage")[1] == "Nothing was used.\n"
    first, _ = accepted()
    queue = Queue(Database.at(settings().database))
    claim = queue.claim("worker")
    assert claim is not None and claim.job.id == first
    queue.finish(claim, "succeeded", outcome=Outcome(assets=(), phases={"denoise": 2.5}))
    assert "toy" in called(capsys, "jobs", "usage", "--days", "7")[1]
    total = json.loads(called(capsys, "jobs", "usage", "--json")[1])["total"]
    assert (total["jobs"], total["compute_seconds"]) == (1, 2.5)
    assert "job.accepted" in called(capsys, "audit", "list")[1]
    head = json.loads(called(capsys, "audit", "verify", "--json")[1])["head"]
    assert called(capsys, "audit", "verify", "--head", head)[0] == 0
    assert called(capsys, "audit", "verify", "--head", "0" * 63)[0] == 1
    with queue.database.write() as connection:
        connection.exec_driver_sql("UPDATE audit SET action = 'nothing' WHERE seq = 1")
    code, out, _ = called(capsys, "audit", "verify")
    assert code == 1 and "Row 1 is not what was written" in out


def test_another_database_is_named_by_its_url(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{home / 'other.sqlite'}"
    assert called(capsys, *KEYS, "--database", url)[0] == 0
    assert "alice" in called(capsys, "keys", "list", "--database", url)[1]
    assert called(capsys, "keys", "list")[1] == "There are no keys.\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([*KEYS, "--scope", "root"], "Scopes are read, create, admin"),
        ([*KEYS, "--running", "0"], "--running is not usable"),
        ([*KEYS, "--daily-seconds", "nan"], "--daily-seconds is not usable"),
        (["keys", "make", ""], "name of a key"),
        (["keys", "revoke", "nobody"], "There is no key 'nobody'"),
        ([*JOBS, "--state", "gone"], "States are queued"),
        ([*JOBS, "--key", "nobody"], "There is no key 'nobody'"),
        ([*JOBS, "--limit", "0"], "--limit"),
        ([*JOBS, "--database", "mysql://a:word@b/c"], "It is sqlite:///FILE"),
        (["jobs", "show", "none"], "There is no such job"),
        (["jobs", "watch", "none"], "There is no such job"),
        (["jobs", "frobnicate"], "frobnicate"),
        (["audit", "verify", "--database", "postgresql://a:word@127.0.0.1:9/c"], "The database cannot be used"),
    ],
)
def test_an_operator_s_verb_refuses_in_one_line(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    code, out, err = called(capsys, *args)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1 and "word" not in err


def test_without_the_server_s_libraries_the_way_to_them_is_said() -> None:
    probe = "import sys; sys.modules['sqlalchemy'] = None; from cinecanvas import cli;"
    probe += f"print([cli.main(args) for args in ({KEYS}, {JOBS}, ['audit', 'list'])])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[2, 2, 2]\n" and done.stderr.count("\n") == 3
    assert all("pip install 'cinecanvas[server]'" in line for line in done.stderr.splitlines())


def reference() -> str:
    """The page of all verbs and flags, drawn from the command itself: `python tests/test_cli.py` writes it anew."""
    lines = [
        "# `cine`: every verb and flag",
        "",
        "Drawn from the command by `python tests/test_cli.py`; a test compares.",
    ]
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    inside = {f"{name} {own}": verb for name, group in verbs.items() for own, verb in _verbs(group).items()}
    alone = {name: verb for name, verb in verbs.items() if not _verbs(verb) or verb.invoke_without_command}
    for name, verb in {**alone, **inside}.items():
        flags = [p for p in verb.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]
        given = [p for p in verb.params if p.param_type_name == "argument"]
        words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in given]
        lines += ["", f"## `{' '.join(['cine', name, *words])}`", "", verb.help, ""]
        lines += [f"- `{p.name.upper()}`: {p.help}" for p in given]
        lines += [f"- {', '.join(f'`{o}`' for o in p.opts)}{_default(p.default)}: {p.help}" for p in flags]
    return "\n".join(lines) + "\n"


def _verbs(group: object) -> dict[str, Any]:
    """The verbs of a group such as `cine keys`; none of a verb."""
    return dict(getattr(group, "commands", {}))


def _default(value: object) -> str:
    return "" if value in (None, "", False) or callable(value) else f" (`{value}`)"


def test_the_reference_is_that_of_the_command() -> None:
    assert DOCS.read_text() == reference()


if __name__ == "__main__":
    DOCS.write_text(reference())
