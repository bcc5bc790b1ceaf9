"""OpenAI's own client, unmodified, against a running server: what it asks, it gets, or is told why not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, service

from cinecanvas.media.video import info

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("openai")) as here:
        yield here


# The page


def test_the_program_on_the_page_runs_with_nothing_but_its_environment_changed(
    running: Service, tmp_path: Path
) -> None:
    page = (ROOT / "docs/how-to/leave-sora.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    environment = {**os.environ, "OPENAI_BASE_URL": f"{running.url}/v1", "OPENAI_API_KEY": "local"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "100.0%" in run.stdout
    film = info(tmp_path / "video.mp4")
    assert (film.width, film.height, film.seconds) == (1280, 720, pytest.approx(4.0))
