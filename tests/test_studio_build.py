"""The page that is shipped is what its source builds to, byte for byte; its types are checked on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from installed import installed

from cinecanvas.server.page import FOLDER

SOURCE = Path(__file__).parents[1] / "studio"
_NPM = ("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0")


def test_the_page_is_built_from_its_source(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no Node here")
    here = tmp_path / "studio"
    shutil.copytree(SOURCE, here, ignore=shutil.ignore_patterns("node_modules"))
    installed([npm, *_NPM], here, what="Svelte and Vite")
    for script in ("check", "build"):
        run = subprocess.run(
            [npm, "run", script],
            cwd=here,
            env={**os.environ, "STUDIO_OUT": str(tmp_path / "out")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    built, shipped = ({file.name: file.read_bytes() for file in at.iterdir()} for at in (tmp_path / "out", FOLDER))
    assert built == shipped, "build it again: cd studio && npm ci && npm run build"
