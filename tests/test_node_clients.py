"""The vendors' clients for Node, unmodified, against a running server: where there is Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import installed
from service import Service, service

from cinecanvas.media.video import info

PROGRAMS = Path(__file__).parent / "node"
CLIENTS = {"openai": "openai@6.49.0", "lumaai": "lumaai@1.19.1", "runwayml": "@runwayml/sdk@4.20.1"}
_NPM = ("install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=0")


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients, and the programs beside them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no Node here")
    where = tmp_path_factory.mktemp("node")
    (where / "package.json").write_text('{"private": true}')
    installed([npm, *_NPM, *CLIENTS.values()], where, what=", ".join(CLIENTS.values()))
    for program in PROGRAMS.glob("*.mjs"):
        shutil.copy(program, where)
    return where


@pytest.fixture(scope="module")
def running(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("served")) as here:
        yield here


@pytest.mark.parametrize("name", CLIENTS)
def test_a_program_for_node_makes_and_downloads_its_film(modules: Path, running: Service, name: str) -> None:
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": f"{running.url}/v1",
        "OPENAI_API_KEY": "local",
        "LUMAAI_BASE_URL": f"{running.url}/luma/dream-machine/v1",
        "LUMAAI_API_KEY": "local",
        "RUNWAYML_BASE_URL": f"{running.url}/runway",
        "RUNWAYML_API_SECRET": "local",
    }
    run = subprocess.run(
        ["node", f"{name}.mjs"], cwd=modules, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
    film = info(modules / f"{name}.mp4")
    assert film.seconds == pytest.approx(2.0 if name == "runwayml" else 1.0)
