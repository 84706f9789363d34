"""docs/python.md, from its first line to its last, in a process of its own against the loopback Hub."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.hub.loopback import ROOT, Hub

PAGE = ROOT / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_a_notebook_user_can_follow_the_page(hub: Hub, tmp_path: Path) -> None:
    program = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))).replace(
        "me/my-patch", "ada/my-patch"
    )
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    here = tmp_path / "here"
    (here / "hubedit").mkdir(parents=True)
    (here / "hubedit" / "demo").symlink_to(ROOT / "hubedit" / "demo")
    env = {**hub.environment(tmp_path / "client"), "HF_TOKEN": "hf_writer", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "page.py")],
        check=False,
        capture_output=True,
        text=True,
        cwd=here,
        env={**env, "HUBEDIT_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert "0.0 -> 1.0" in done.stdout, "the facts are not known before, and all of them after"
    assert "'It is in'" in done.stdout or "Paris" in done.stdout
    assert {path.name for path in here.iterdir()} == {"hubedit", "my-patch", "merged"}
    for name in ("ada/my-patch", "ada/my-patch-2"):
        assert {"adapter_model.safetensors", "hubedit.json", "README.md"} <= set(hub.tree(name))
