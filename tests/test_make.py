"""`make demo` takes the real model where it can be had, and says in one line where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def made(target: str, folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Runs a target with programs that only say how they were called; `python`: what the real model's maker
    does."""
    programs = folder / "bin"
    programs.mkdir()
    maker = f'#!/bin/sh\ncase "$*" in *tests.lab.pretrained*) {python};; esac\n'
    for name, text in (("python", maker), ("hubedit", '#!/bin/sh\necho "hubedit $*"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / ".installed").touch()
    words = ["make", "--no-print-directory", target, f"VENV={folder}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})


def test_the_demo_is_of_a_real_model(tmp_path: Path) -> None:
    done = made("demo", tmp_path, "echo making; echo /models/real")
    assert done.stdout.splitlines()[-1] == "hubedit demo --model /models/real --force"
    assert "smollm2-135m-instruct" in done.stdout


def test_without_the_package_the_bundled_model_is_taken(tmp_path: Path) -> None:
    done = made("demo", tmp_path, "echo 'cannot download it' >&2; exit 1")
    assert done.stdout.splitlines()[-1] == "hubedit demo --force"
    assert done.stderr.splitlines() == ["the bundled model instead: cannot download it"]


def test_the_bundled_model_can_be_asked_for(tmp_path: Path) -> None:
    done = made("demo-offline", tmp_path, "exit 1")
    assert done.stdout.splitlines()[-1] == "hubedit demo --force"
