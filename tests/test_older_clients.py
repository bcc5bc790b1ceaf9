"""The vendors' clients of a year ago, as their programs still have them, against a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import installed
from service import Service, service

PROGRAM = Path(__file__).parent / "older_clients.py"
OLDER = {"openai": "2.6.0", "lumaai": "1.12.0", "runwayml": "4.18.0"}


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has them, and nothing of ours."""
    where = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, "-m", "venv", where], check=True)
    python = where / ("Scripts" if os.name == "nt" else "bin") / "python"
    pins = [f"{name}=={version}" for name, version in OLDER.items()]
    installed([str(python), "-I", "-m", "pip", "install", "-q", "--retries", "1", *pins], where, what=", ".join(pins))
    return python


@pytest.fixture(scope="module")
def running(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("served")) as here:
        yield here


@pytest.mark.parametrize("name", OLDER)
def test_a_client_of_a_year_ago_makes_its_film(older: Path, running: Service, name: str) -> None:
    run = subprocess.run(
        [str(older), "-I", str(PROGRAM), name, running.url], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
