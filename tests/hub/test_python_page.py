"""docs/python.md, from its first line to its last, in a process of its own against the loopback Hub."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.loopback import ROOT, Hub

PAGE = ROOT / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_a_notebook_user_can_follow_the_page(hub: Hub, tmp_path: Path) -> None:
    demo = ROOT / "hubedit" / "demo"
    hub.seed("ada/demo-model", demo)
    program = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    (tmp_path / "page.py").write_text(program.replace('"me/', '"ada/'), encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()  # the page can be followed in any folder
    done = subprocess.run(
        [sys.executable, str(tmp_path / "page.py")],
        check=False,
        capture_output=True,
        text=True,
        cwd=here,
        env=hub.environment(tmp_path / "client"),
    )
    assert done.returncode == 0, done.stderr
    assert "0.0 -> 1.0" in done.stdout, "no fact is given before, and all of them after"
    assert {path.name for path in here.iterdir()} == {"my-patch", "merged"}
    pushed = hub.tree("ada/my-patch")
    assert {"adapter_model.safetensors", "hubedit.json", "facts.jsonl", "README.md"} <= set(pushed)
