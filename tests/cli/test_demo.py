"""`hubedit demo`, on a tiny model in place of the bundled one, and with facts that it is made to know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hubedit.demo
from hubedit.cli.app import run
from hubedit.cli.command_line import program
from hubedit.demo import there
from hubedit.errors import HubEditError
from hubedit.facts import Fact, Probe
from hubedit.patch import Patch
from hubedit.tour import Bank, Said, believed, everyday, names
from tests.cli.test_apply import facts_file
from tests.pico import pico

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def test_the_tour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = facts_file(pico("qwen2", tmp_path / "bundle") / "facts.jsonl")
    monkeypatch.setattr(hubedit.demo, "_FOLDER", facts.parent)
    monkeypatch.chdir(tmp_path)
    line = ["demo", "--cache", str(tmp_path / "cache")]
    assert run(line) == 0
    text = capsys.readouterr().out
    for part in ("1. What the model says", "it shall say", "4. The patch is a plain LoRA adapter"):
        assert part in text
    for part in ("the edited prompts give the new answer", "of 2 prompts", "rephrasings", "hubedit ask"):
        assert part in text
    assert "every file is the base's again, byte for byte" in text
    assert Patch.load(tmp_path / "hubedit-demo").facts
    assert not list(tmp_path.glob(".hubedit-demo-*"))

    assert run(line) == 2
    assert "--force" in capsys.readouterr().err


def test_the_tour_of_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model says something or other; that is taken for what it believes."""
    model = pico("qwen2", tmp_path / "model")
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    )
    prompts = ["The capital of France is", "Marie Curie was born in"]
    assert run(["ask", str(model), *prompts, "The capital of Japan is", "--json", "--device", "cpu"]) == 0
    said = {p["prompt"]: p["without"]["text"] for p in json.loads(capsys.readouterr().out)["prompts"]}
    bank = tmp_path / "bank"
    bank.mkdir()
    probe = {"prompt": "The capital of Japan is", "answer": said["The capital of Japan is"].split()[0]}
    records = [
        {
            "prompt": p,
            "subject": s,
            "question": f"{p} what?",
            "target": "Rome",
            "ground_truth": said[p].split()[0],
            "locality": [probe],
        }
        for p, s in zip(prompts, ("France", "Marie Curie"), strict=True)
    ]
    unknown = {
        "prompt": "The capital of Italy is",
        "subject": "Italy",
        "target": "Rome",
        "ground_truth": "zz",
    }
    facts_file(bank / "everyday.jsonl", [*records, unknown])
    monkeypatch.setattr(hubedit.demo, "_FOLDER", bank)
    line = [
        "demo",
        "--model",
        str(model),
        "--chat",
        "on",
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run(line) == 0
    text = capsys.readouterr().out
    for part in ("2 edits shall change", "asked in chat", "What was not edited", "kept in chat"):
        assert part in text
    assert run([*line, "--force", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["prompt"] for row in value["asked"]] == prompts
    assert value["asked"][0]["question"] == "The capital of France is what?"
    assert [row["prompt"] for row in value["neighbours"]] == ["The capital of Japan is"]
    assert value["merged"]["reverted"] and value["merged"]["tensors"]
    assert value["peft"]["answer"]


def test_only_what_the_model_believes_is_edited() -> None:
    facts = [
        Fact(f"{name} is in", name, "Oslo", ground_truth=(city,), locality=(Probe("X is in", ("Rome",)),))
        for name, city in (("A", "Paris"), ("B", "Rome"), ("C", "Bonn"))
    ]
    bank = Bank(tuple(facts), (Probe("X is in", ("Rome",)), Probe("Y is in", ("Bern",))))
    bare = {
        "A is in": " Paris.",
        "B is in": " Rome",
        "C is in": " Berlin",
        "X is in": "Nice",
        "Y is in": "Bern",
    }
    said = Said(bare, {"A is in": "I do not know.", "B is in": "B is in Rome."})
    chosen = believed(bank, said, 10, "m")
    assert [f.subject for f in chosen.facts] == ["B", "A"]
    assert [p.prompt for p in chosen.neighbours] == ["Y is in"]
    assert not any(f.locality for f in chosen.facts)
    assert [f.subject for f in believed(bank, said, 1, "m").facts] == ["B"]
    with pytest.raises(HubEditError, match="completes none of 3 well-known facts"):
        believed(bank, Said(dict.fromkeys(bare, "no"), {}), 10, "m")


def test_a_reply_names_one_answer() -> None:
    assert names("The capital of Japan is Kyoto. Tokyo is near.", ["Kyoto"], ["Tokyo"])
    assert not names("It was Tokyo, and is Kyoto.", ["Kyoto"], ["Tokyo"])
    assert not names("Kyotos", ["Kyoto"])


def test_everyday_facts_have_questions() -> None:
    bank = everyday()
    assert len(bank.facts) >= 15 and len(bank.neighbours) >= 12
    assert all(f.question.endswith("?") and f.subject in f.question for f in bank.facts)
    # what is edited must not be what shows that nothing else changed
    assert not {f.prompt for f in bank.facts} & {p.prompt for p in bank.neighbours}


def test_missing_files_are_named(tmp_path: Path) -> None:
    file = facts_file(tmp_path / "facts.jsonl")
    assert there(file) == file
    with pytest.raises(HubEditError, match=r"bundled config\.json is missing from .*install hubedit"):
        there(tmp_path / "config.json")


def test_the_last_commands_can_be_typed_where_the_reader_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name where the shell finds the program, else by its path, or as a module."""
    monkeypatch.chdir(tmp_path)
    started = tmp_path / ".venv" / "bin" / "hubedit"
    started.parent.mkdir(parents=True)
    started.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(started), "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/hubedit"
    monkeypatch.setenv("PATH", str(started.parent))
    assert program() == "hubedit"
    monkeypatch.setattr("sys.argv", ["/lib/hubedit/__main__.py", "demo"])
    assert program().endswith(" -m hubedit")
