"""What deploy/ says runs: its commands are commands of ours, and systemd understands the unit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cinecanvas.cli import app

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = (DEPLOY / "cinecanvas.service").read_text()


def flags(command: str) -> set[str]:
    """The options of a command of ours."""
    found: Any = typer.main.get_command(app)
    return {name for option in found.commands[command].params for name in option.opts}


def asked(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z-]+", text))


def test_the_unit_asks_for_options_that_are_there() -> None:
    (line,) = re.findall(r"^ExecStart=\S+/cine serve (.*)$", UNIT, re.MULTILINE)
    (example,) = re.findall(r'OPTIONS="([^"]+)"', UNIT)
    assert asked(line) | asked(example) <= flags("serve")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cinecanvas.service"  # its own command is not installed here, so another stands for it
    unit.write_text(UNIT.replace("/opt/cinecanvas/bin/cine", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert str(unit.name) not in done.stderr, done.stderr


def test_the_compose_file_starts_a_server_that_needs_a_key() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    command = services["server"]["command"]
    assert command[:3] == ["serve", "--host", "0.0.0.0"] and asked(" ".join(command)) <= flags("serve")
    assert all(port.startswith("127.0.0.1:") for port in services["server"]["ports"])
    assert services["server"]["environment"]["CINECANVAS_DATABASE"].startswith("postgresql://")
    assert (DEPLOY.parent / services["server"]["build"]["dockerfile"]).is_file()


def test_the_image_is_built_of_what_is_there() -> None:
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert all((DEPLOY.parent / name).exists() for line in copied for name in line.split())
