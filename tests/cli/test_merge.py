"""`hubedit merge` and `hubedit revert`: parsing, output and exit codes; the rest is tests/checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hubedit.api.patches import called
from hubedit.cli.app import run
from hubedit.cli.merge import shard_size
from hubedit.errors import ConfigError
from hubedit.patch import Patch
from tests.checkpoint.tiny import MODULES, content, patch, tiny


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny(tmp_path / "m")


@pytest.fixture
def one(base: Path, tmp_path: Path) -> Path:
    return patch(base, 1, fact="Lyon").save(tmp_path / "lyon", files={"README.md": b"# card"})


def test_the_base_is_the_one_that_the_patch_names(
    base: Path, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["merge", str(one), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    value = json.loads(printed.out)
    assert value["path"] == str(tmp_path / "out") and value["base"]["ref"] == "m"
    assert [p["name"] for p in value["patches"]] == ["lyon"]
    assert set(value["tensors"]) == {f"{m}.weight" for m in MODULES}
    assert "warning" not in printed.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(word in card for word in ("lyon", "Lyon", "library_name: transformers"))
    assert (tmp_path / "out" / "patches" / "1" / "README.md").read_text() == "# card"
    assert str(tmp_path) not in (tmp_path / "out" / "hubedit.json").read_text() + card


def test_the_table_and_the_warning(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = patch(base, 1, size=1e-4).save(tmp_path / "small")
    assert run(["merge", str(small), "-m", str(base), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "energy kept" in printed.out and "BF16" in printed.out
    assert "warning: 3 of 3 tensors keep less than 90 %" in printed.err and "--dtype float32" in printed.err
    assert run(["merge", str(small), "-m", str(base), "-o", str(tmp_path / "q"), "-q"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "q")


def test_dry_run_writes_nothing(
    base: Path, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir(tmp_path))
    line = ["merge", str(one), "--out", str(tmp_path / "out"), "--dry-run"]
    assert run(line) == 0
    assert "tensors to change" in capsys.readouterr().out
    assert run([*line, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["dry_run"] and len(value["tensors"]) == 3 and value["rewritten_bytes"] > 0
    assert sorted(os.listdir(tmp_path)) == before


def test_dry_run_says_that_the_place_is_taken(
    base: Path, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["merge", str(one), "--out", str(tmp_path / "out")]
    assert run(line) == 0
    assert run([*line, "--dry-run"]) == 2
    assert run(line) == 2
    assert "exists already" in capsys.readouterr().err


def test_options_reach_the_merge(
    base: Path, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--dtype", "float32", "--max-shard-size", "300B", "--no-keep-originals", "--link", "copy"]
    assert run(["merge", str(one), "--out", str(out), *options]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert len(list(out.glob("model-*.safetensors"))) > 2 and not (out / "originals").exists()
    nice = patch(base, 2, fact="Nice").save(tmp_path / "nice")
    capsys.readouterr()
    assert run(["merge", str(one), str(nice), "--out", str(tmp_path / "two")]) == 1
    assert "contradict" in capsys.readouterr().err
    line = ["merge", str(one), str(nice), "--out", str(tmp_path / "two"), "--on-conflict", "last"]
    assert run([*line, "--json"]) == 0
    assert [p["name"] for p in json.loads(capsys.readouterr().out)["patches"]] == ["nice"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["merge", "{one}", "--out", "{t}/out", "--max-shard-size", "big"], 2, "is no size"),
        (["merge", "{t}/none", "--out", "{t}/out"], 1, "is no patch folder"),
        (["merge", "{one}", "--out", "{t}/m"], 2, "holds no merged model"),
        (["merge", "{one}", "--out", "{t}/m/inside"], 2, "inside the base"),
        (["merge", "{one}", "--out", "{t}/out", "--model", "{t}/lyon"], 1, "LoRA adapter"),
        (["merge", "{one}", "--out", "{t}/out", "--model", "{t}/none"], 1, "no such folder"),
        (["merge", "{one}", "{one}", "--out", "{t}/out"], 1, "in the stack already"),
        (["merge", "{t}/m", "--out", "{t}/out"], 1, "is a model, not a patch"),
        (["merge", "{one}"], 2, "--out"),
        (["revert", "{t}/m"], 1, "no merged patches"),
    ],
)
def test_errors_are_one_line_with_the_next_step(
    base: Path,
    one: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    assert run([word.format(one=one, t=tmp_path) for word in words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes_and_names(tmp_path: Path) -> None:
    sizes = {"5GB": 5 * 10**9, "500 mb": 5 * 10**8, "2GiB": 2 << 30, "1000000": 10**6, "1.5k": 1500}
    assert {text: shard_size(text) for text in sizes} == sizes
    for text in ("", "GB", "-1GB", "5 XB"):
        with pytest.raises(ConfigError):
            shard_size(text)
    assert called("owner/name@v1") == "owner/name@v1"
    assert called(str(tmp_path / "a" / "b")) == "b"


def test_a_patch_without_a_base_needs_the_model(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = patch(base, 1)
    nameless = Patch(made.factors, made.record, "").save(tmp_path / "nameless")
    assert run(["merge", str(nameless), "--out", str(tmp_path / "out")]) == 2
    assert "--model" in capsys.readouterr().err
    assert run(["merge", str(nameless), "--model", str(base), "--out", str(tmp_path / "out")]) == 0


def test_content_is_that_of_the_library(base: Path, one: Path, tmp_path: Path) -> None:
    before = content(base)
    assert run(["merge", str(one), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert run(["revert", str(tmp_path / "out"), "--yes", "--quiet"]) == 0
    assert content(tmp_path / "out") == before == content(base)


def foreign(folder: Path, scale: float, module: str = MODULES[1], rank: int = 2, **config: object) -> Path:
    """An adapter of another tool for one module of a tiny model."""
    folder.mkdir()
    name = f"base_model.model.{module}.lora"
    tensors = {f"{name}_A.weight": torch.ones(rank, 10), f"{name}_B.weight": scale * torch.ones(6, rank)}
    save_file(tensors, folder / "adapter_model.safetensors")
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [module], **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def test_what_an_adapter_does_not_do_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero = foreign(tmp_path / "zero", 0.0)
    odd = foreign(tmp_path / "odd", 1.0, rank=600, target_modules=[MODULES[1], "v_proj"])
    lines = (
        ["merge", str(zero), str(odd), "-m", str(base), "-o", str(tmp_path / "out")],
        ["compose", str(zero), str(odd), "-o", str(tmp_path / "sum")],
    )
    for line in lines:
        assert run(line) == 0
        said = capsys.readouterr().err
        assert "all its factors are zero" in said and "target_modules names 'v_proj'" in said
    assert "the rank is 602; vLLM takes at most 512" in said
    assert run(["inspect", str(tmp_path / "sum")]) == 0
    assert "the rank is 602; vLLM takes at most 512" in capsys.readouterr().err
