"""Clients that are installed for a test alone: old ones, and those of another language; they need a package index."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_PATIENCE = 120.0  # s


def installed(command: Sequence[str], where: Path, *, what: str) -> None:
    """Install something; where that is not possible the tests are skipped, but never in continuous integration."""
    try:
        run = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=_PATIENCE)
        trouble = (run.stderr.strip() or run.stdout.strip() or "no word of why") if run.returncode else ""
    except subprocess.TimeoutExpired:
        trouble = f"not within {_PATIENCE:.0f} s"
    if trouble and os.environ.get("CI"):
        raise AssertionError(f"{what} cannot be installed: {trouble}")
    if trouble:
        lines = trouble.splitlines()
        line = next((one for one in lines if one.lower().startswith(("error", "npm error"))), lines[-1])
        pytest.skip(f"{what} cannot be installed here, perhaps for want of a network: {line}")
