"""What the docs show is what runs: the Python blocks of a page, in order, in a fresh process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/tutorial.md", "docs/concepts/canvas.md", "docs/how-to/tasks.md", "docs/world/world.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_python_on_this_page_runs(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks, f"{page} shows no Python"
    environment = {**os.environ, "CINECANVAS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    script = "\n".join(blocks)
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_makes_its_film(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 30
    environment = {**os.environ, "CINECANVAS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, example], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / f"{example.stem}.mp4").stat().st_size > 1000


def test_every_picture_and_link_in_the_docs_exists() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} points at {target}"


def test_every_module_has_its_line_in_the_house() -> None:
    house = (ROOT / "docs/house.md").read_text()
    source = ROOT / "src/cinecanvas"
    for module in source.rglob("*.py"):
        name = str(module.relative_to(source))
        assert module.name in ("__init__.py", "__main__.py") or f"`{name}`" in house, f"docs/house.md lacks {name}"
