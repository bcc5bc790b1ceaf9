"""The rules of the house, as tests: what may import what, what is frozen, what is public, and how a file looks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cinecanvas

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "cinecanvas"
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), name) for name, path in FILES.items()}
FLOORS = (
    {"errors"},
    {"runtime", "ramp"},
    {"request", "schedule", "grid", "settings", "logs", "pace", "stepcache"},
    {"canvas", "model", "media", "world", "layout", "flags", "solvers"},
    {"plan", "sampler", "guidance", "anchor", "likeness", "reel", "client", "models", "compose", "enhance"},
    {"fitting"},
    {"generate"},
    {"jobs", "eval"},
    {"server", "train", "console", "arguments"},
    {"service", "checkpoints"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
FAMILIES = {name for name, tree in TREES.items() if name.startswith("models/") and "register" in {
    node.name for node in tree.body if isinstance(node, ast.FunctionDef)
}}  # fmt: skip
PUBLIC = {
    "Canvas", "Card", "CinecanvasError", "Clip", "Grid", "Model", "Request", "Schedule", "Store", "cards", "fill",
    "generate", "guided", "load", "plan", "take", "__version__",
    "animate", "extend", "inpaint", "interpolate", "join", "keyframes", "loop", "outpaint", "remix", "retake",
    "text_to_image", "text_to_video", "upscale", "variations",
}  # fmt: skip
each_file = pytest.mark.parametrize("name", FILES)


def imports(name: str) -> Iterator[str]:
    """Every module that a file imports, in functions too, not for type checkers; `from a import b` counts as both."""
    waiting: list[ast.AST] = [TREES[name]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> set[str]:
    """The rooms that a file imports: the first word after cinecanvas."""
    return {module.split(".")[1] for module in imports(name) if module.startswith("cinecanvas.")} - {"__version__"}


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


@each_file
def test_imports_only_run_down(name: str) -> None:
    if name == "__init__.py":
        assert not ours(name)
        return
    here = room(name)
    assert here in FLOOR, f"{here} stands on no floor"
    upwards = {other for other in ours(name) if other != here and FLOOR.get(other, 99) >= FLOOR[here]}
    assert not upwards, f"{name} on floor {FLOOR[here]} imports {upwards}"


def test_no_module_imports_itself_through_others() -> None:
    modules = {f"cinecanvas.{n.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}": n for n in FILES}
    graph = {module: {i for i in imports(n) if i in modules and i != module} for module, n in modules.items()}
    done: set[str] = set()
    while ready := {module for module, needs in graph.items() if module not in done and needs <= done}:
        done |= ready
    assert done == set(graph), f"in or behind a circle: {set(graph) - done}"


def test_the_front_needs_no_torch() -> None:
    front = ("errors", "grid", "schedule", "request", "settings", "model", "plan", "models", "media.assets", "cli")
    probe = "import sys, importlib, cinecanvas\n"
    probe += "".join(f"importlib.import_module('cinecanvas.{name}')\n" for name in (*front, "generate"))
    probe += (
        "cinecanvas.cards(); cinecanvas.text_to_video('a'); print([m for m in ('torch', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@each_file
def test_only_the_rooms_named_import_the_libraries_named(name: str) -> None:
    roots = {module.split(".")[0] for module in imports(name)}
    allowed = {
        "av": name.startswith("media/"),
        "PIL": name.startswith("media/"),
        "obstore": name == "media/assets.py",
        "ray": name == "jobs/cluster.py",
        "huggingface_hub": name == "models/hub.py",
        "urllib": name in ("models/weights.py", "media/fetch.py", "client.py", "server/desk.py", "server/serve.py"),
        "httpcore": name == "media/fetch.py",
        "httpx": name in ("models/weights.py", "media/fetch.py", "client.py"),
        "sqlalchemy": name.startswith("jobs/"),
        "alembic": name.startswith("jobs/"),
        "dbos": name == "jobs/engine.py",
        "fastapi": name.startswith("server/"),
        "starlette": name.startswith("server/"),
        "uvicorn": name.startswith("server/"),
        "prometheus_client": name.startswith("server/"),
        "pickle": False,  # what is read from a database or a file never runs code
        "requests": False,
        "torchvision": False,
        "transformers": False,
        "cv2": False,
    }
    assert not {library for library in roots if not allowed.get(library, True)}


def test_families_never_import_one_another() -> None:
    assert {"models/toy.py", "models/diorama.py"} <= FAMILIES
    modules = {f"cinecanvas.{name.removesuffix('.py').replace('/', '.')}" for name in FAMILIES}
    for name in FILES:
        if name.startswith("models/"):
            own = f"cinecanvas.{name.removesuffix('.py').replace('/', '.')}"
            assert not (set(imports(name)) & modules) - {own}, name


@each_file
def test_what_crosses_a_process_is_frozen(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.ClassDef):
            continue
        frozen = "frozen=True" in "".join(ast.unparse(node).split())
        if any("BaseModel" in ast.unparse(base) for base in node.bases):
            assert frozen, f"{name}: {node.name} is a pydantic value that can change"
        dataclass = any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)
        if dataclass and not name.startswith("train/"):  # a training run is state, and lives in one process
            assert frozen, f"{name}: {node.name} is a dataclass that can change"


@each_file
def test_a_file_opens_with_a_sentence_and_is_not_long(name: str) -> None:
    sentence = ast.get_docstring(TREES[name])
    text = FILES[name].read_text()
    assert sentence or not text.strip(), f"{name} does not say what it is"
    assert text.count("\n") <= 600
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not banned & set(name.removesuffix(".py").split("/"))


def test_public_names_are_pinned() -> None:
    assert set(cinecanvas.__all__) == PUBLIC
    assert all(getattr(cinecanvas, name) is not None for name in PUBLIC)


def test_functions_are_not_hidden_by_the_modules_of_their_names() -> None:
    probe = (
        "import cinecanvas.generate, cinecanvas.plan, cinecanvas;"
        "print(callable(cinecanvas.generate), callable(cinecanvas.plan))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True True\n", done.stderr


def test_nothing_prints_but_commands() -> None:
    for name, tree in TREES.items():
        for node in tree.body:
            command = name in ("cli.py", "service.py", "checkpoints.py", "console.py") or (
                isinstance(node, ast.FunctionDef) and node.name == "main"
            )
            calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
            assert command or not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), name


def test_ruff_is_content() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_mypy_is_content() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
