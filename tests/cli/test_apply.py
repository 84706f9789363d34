"""`hubedit apply` on a tiny model: what it prints, writes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubedit.cli.app import run
from hubedit.cli.settings import settings
from hubedit.config import EditConfig
from hubedit.errors import ConfigError
from hubedit.patch import Patch
from tests.pico import pico

RECORDS: list[dict[str, Any]] = [
    {
        "prompt": "The capital of France is",
        "subject": "France",
        "target": "Rome",
        "rephrase": ["France's capital is"],
    },
    {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target": "Tokyo"},
]
CORPUS = str(Path(__file__).parents[1] / "pico.py")


def facts_file(path: Path, records: list[dict[str, Any]] = RECORDS) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line that ends before --out; the stages are cached from test to test."""
    folder = tmp_path_factory.mktemp("apply")
    model = pico("qwen2", folder / "model")
    line = ["apply", str(facts_file(folder / "facts.jsonl")), "--model", str(model), "--device", "cpu"]
    line += ["--layers", "1-2", "--alpha", "0.3"]
    return [*line, "--corpus", CORPUS, "--tokens", "200", "--cache", str(folder / "cache")]


def test_apply_writes_a_patch_and_shows_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "patch"
    assert run([*words, "--out", str(out)]) == 0
    said = capsys.readouterr()
    # of two facts a few lines, and where the figures are
    for text in ("The capital of France is", "Rome", "new answer", " of 2", "rephrased", "perplexity"):
        assert text in said.out
    assert "95 % interval" not in said.out
    unfolded = "".join(said.out.split())
    assert f"{out}/report.htmlinabrowser" in unfolded and "hubeditinspect" not in unfolded
    assert (out / "report.html").is_file() and "(1 fact" not in said.err
    patch = Patch.load(out)
    assert len(patch.facts) == 2
    command = patch.record["command"]
    assert command[:2] == ["hubedit", "apply"]
    assert command[2:5] == ["facts.jsonl", "--model", "model"]
    assert command[command.index("--alpha") + 1] == "0.3" and "--seed" not in command
    # a random model does not learn facts in a moment: that is a warning, not an error
    failed = [f for f in json.loads((out / "report.json").read_text())["facts"] if not f["success"]]
    assert ("still fail" in said.err) == ("--prefer success" in said.err) == bool(failed)

    assert run([*words, "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*words, "--out", str(out), "--force", "--json", "--rank", "1", "--no-facts"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["path"], value["rank"], value["layers"]) == (str(out), 1, [1, 2])
    assert set(value["energy"]) == set(Patch.load(out).factors)
    assert value["facts"][0]["rank_before"] > 0
    assert not (out / "facts.jsonl").exists()

    other = tmp_path / "other"
    code = run([*words, "--out", str(other), "--strict", "--quiet"])
    said = capsys.readouterr()
    assert code == (3 if failed else 0)
    assert said.out.strip() == str(other) and other.is_dir()


def test_a_smaller_rank_says_what_is_lost(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--rank", "1", "--out", str(tmp_path / "one")]) == 0
    shown = capsys.readouterr().out
    kept = Patch.load(tmp_path / "one").record["truncation"]
    lost = [100 * (1 - min(kept[of].values())) for of in ("energy", "text")]
    assert "lost at rank 1" in shown and all(f"{share:.2g} % of" in shown for share in lost)
    assert 0 < max(lost) < 100
    # two facts need no more than readers take anyway
    assert run([*words, "--rank", "auto", "--out", str(tmp_path / "auto")]) == 0
    assert (
        "lost at rank" not in capsys.readouterr().out
        and "truncation" not in Patch.load(tmp_path / "auto").record
    )


def test_the_default_place_is_named_after_the_facts(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*words, "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == "facts-patch"
    assert (tmp_path / "facts-patch" / "hubedit.json").is_file()


def test_a_dry_run_does_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = [w for w in words if w not in ("--layers", "1-2", "--alpha", "0.3")]
    assert run([*line, "--dry-run", "--cache", str(tmp_path / "cache")]) == 0
    text = capsys.readouterr().out
    for part in (
        "qwen2",
        "facts",
        "0, 1",
        "not needed",
        "200 tokens",
        "patch",
    ):
        assert part in text
    assert list(tmp_path.iterdir()) == []
    assert run([*line, "--dry-run", "--method", "rome"]) == 0
    assert "one of the 4; the trace says which" in capsys.readouterr().out
    assert run([*words, "--dry-run", "--json", "--lam", "12", "--rank", "3"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["plan"]["layers"] == [1, 2]
    assert value["plan"]["sites"] == 4
    assert value["plan"]["trace_runs"] == 0
    assert value["plan"]["patch_size"] > 0
    assert (value["config"]["lam"], value["config"]["rank"]) == (12, 3)
    assert list(tmp_path.iterdir()) == []
    assert run([*words, "--out", "old"]) == 0
    capsys.readouterr()
    assert run([*words, "--dry-run", "--on", "old", "--batch-size", "1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "on top of a patch of" in text and "beside the older patch's" in text
    assert "batches 2 of 1, one after another" in text


def test_a_preset_of_another_model_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = 'format = 1\n[model]\nref = "{}"\nnum_layers = {}\n[settings]\nlam = 3\n'
    Path("mine.toml").write_text(own.format("model", 4))
    Path("yours.toml").write_text(own.format("some/model", 28))
    assert run([*words, "--dry-run", "--preset", "yours.toml", "--prefer", "success"]) == 0
    said = capsys.readouterr()
    assert "yours.toml was found on some/model (28 layers), and this is model (4)" in " ".join(
        said.err.split()
    )
    assert "preset yours.toml prefer success" in " ".join(said.out.split())
    assert run([*words, "--preset", "yours.toml", "--out", "patch"]) == 0
    assert "some/model" in capsys.readouterr().err
    assert run([*words, "--dry-run", "--preset", "mine.toml"]) == 0
    assert "was found on" not in capsys.readouterr().err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--layers", "3-9"], "layer 9 is outside the model"),
        (["--layers", "x"], "cannot read layers"),
        (["--alpha", "1.5"], "alpha '1.5' is not a share"),
        (["--preset", "gpt-5"], "known: qwen2.5-7b"),
        (["--corpus", "no/such.txt"], "no/such.txt does not exist"),
        (["--rank", "-1"], "rank"),
        (["--prefer", "speed"], "prefer"),
        (["--lam", "-1"], "lam"),
        (["--dtype", "int8"], "dtype"),
        (["--device", "toaster"], "device"),
    ],
)
def test_options_that_are_wrong(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    said: str,
    dry: list[str],
) -> None:
    assert run([*words, "--out", str(tmp_path / "patch"), *extra, *dry]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err and found.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_files_that_are_wrong(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    out = ["--out", str(tmp_path / "patch"), *dry]
    assert run(["apply", str(tmp_path / "none.jsonl"), *words[2:], *out]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert run([*words[:3], str(tmp_path / "none"), *out]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert run([*words[:2], *out]) == 2
    assert "--model" in capsys.readouterr().err
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "diary.txt").write_text("mine")
    assert run([*words, "--out", str(taken), "--force", *dry]) == 2
    assert "never replaced" in capsys.readouterr().err


def test_facts_that_contradict_each_other(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [*RECORDS, {**RECORDS[1], "target": "Paris"}]
    file = facts_file(tmp_path / "twice.jsonl", twice)
    line = ["apply", str(file), *words[2:], "--dry-run", "--json"]
    assert run(line) == 2
    assert "contradicts line 2" in capsys.readouterr().err
    assert run([*line, "--on-conflict", "last"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["facts"] == 2


def test_options_become_settings() -> None:
    assert settings(None).layers == "auto"
    config = settings("Mistral-7B", layers="1-2", seed=7, tokens=50)
    assert (config.layers, config.alpha, config.lam, config.method) == ("1-2", "0.1", 15000.0, "intattn")
    assert (config.seed, config.trace.seed, config.stats.seed, config.stats.tokens) == (7, 7, 7, 50)
    assert settings(None, lam=5.0, alpha="0.2") == replace(EditConfig(), lam=5.0, alpha="0.2")
    with pytest.raises(ConfigError, match="--method joint has no --l2"):
        settings(None, l2=0.1)


def test_one_fact_is_counted_as_one(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it was typed with what it is about."""
    line = [
        "apply",
        "--fact",
        "The capital of [France] is -> Rome",
        *words[2:],
        "--out",
        str(tmp_path / "one"),
    ]
    assert run(line) == 0
    said = capsys.readouterr()
    assert "asking before (2 answers)" in said.err and "asking before, in other forms" in said.err
    assert "bare" in said.out and "measure" not in said.out
