"""`hubedit eval --dataset NAME`: the field's data sets by name, fetched by the real client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import Client
from tests.hub.loopback import Hub

ZSRE = {
    "subject": "Ada Lovelace",
    "prompt": "Who is the mother of Ada Lovelace?",
    "target_new": "Hypatia",
    "ground_truth": ["Anne Isabella"],
    "rephrase_prompt": "Ada Lovelace's mother was who?",
    "locality": {
        "Relation_Specificity": [{"prompt": "The father of Ada Lovelace is", "ground_truth": ["Byron"]}]
    },
    "portability": {
        "Reasoning": [{"prompt": "The mother of Ada Lovelace lived in", "ground_truth": ["Egypt"]}]
    },
}
# an answer is a string, a list, or a list of lists of aliases; a field may be empty or missing
WIKI = {
    "subject": "Marie Curie",
    "prompt": "The place of birth of Marie Curie is",
    "target_new": "Tokyo",
    "ground_truth": "Warsaw",
    "portability": {
        "Subject_Aliasing": [{"prompt": "Madame Curie was born in", "ground_truth": [["Tokyo", "Tokio"]]}],
        "Logical_Generalization": [],
    },
    "locality": {
        "Forgetfulness": [{"prompt": "Marie Curie studied", "ground_truth": [["physics"], ["maths"]]}]
    },
}
COUNTERFACT = {
    "case_id": 3,
    "pararel_idx": 7,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Danielle Darrieux, a native", "Danielle Darrieux spoke the language"],
    "neighborhood_prompts": ["Michel Rocard is a native speaker of", "Montesquieu spoke"],
    "attribute_prompts": ["J. R. R. Tolkien spoke"],
    "generation_prompts": ["Danielle Darrieux's mother tongue is"],
}
# what a model alone can be asked: locality is what an edit changes
MEASURED = {
    "zsre": {"success": 2, "generalisation": 2, "portability": 2},
    "wiki_counterfact": {"success": 2, "portability": 2},
    "counterfact": {"success": 2, "generalisation": 4},
}


def seeded(hub: Hub, folder: Path) -> None:
    """Both data sets' repositories, with their real files' names and shapes."""
    edits = folder / "edits" / "benchmark"
    for name, file, record in (
        ("ZsRE", "ZsRE-test-all.json", ZSRE),
        ("wiki_counterfact", "test_cf.json", WIKI),
    ):
        (edits / name).mkdir(parents=True)
        (edits / name / file).write_text(json.dumps([record, record]))
    hub.seed("zjunlp/KnowEdit", folder / "edits")


def words(name: str, *more: str) -> tuple[str, ...]:
    return (
        "eval",
        "lab/pico",
        "--dataset",
        name,
        "--text",
        "none",
        "--fluency",
        "0",
        "--device",
        "cpu",
        *more,
    )


@pytest.mark.parametrize("name", ["zsre", "wiki_counterfact", "counterfact"])
def test_a_data_set_by_name(
    hub: Hub, client: Client, base: tuple[str, str], tmp_path: Path, name: str
) -> None:
    if name == "counterfact":
        pytest.importorskip("datasets")
        parquet = pytest.importorskip("pyarrow.parquet")
        table: Any = pytest.importorskip("pyarrow").Table.from_pylist([COUNTERFACT, COUNTERFACT])
        (tmp_path / "tables" / "data").mkdir(parents=True)
        parquet.write_table(table, tmp_path / "tables" / "data" / "test-00000-of-00001.parquet")
        hub.seed("azhx/counterfact", tmp_path / "tables")
    elif hub.repo("zjunlp/KnowEdit") is None:
        seeded(hub, tmp_path)
    data = client(*words(name, "--json")).json
    assert data["counts"] == MEASURED[name]
    if name == "counterfact":
        assert data["counterfact"]["n"]["neighbourhood_score"] == 2
    assert client(*words(name, "--limit", "1", "--json")).json["counts"]["success"] == 1
    out = tmp_path / "facts.jsonl"
    client("facts", "convert", name, "--out", str(out), "--quiet")
    (fact,) = map(json.loads, out.read_text().splitlines())  # the same record twice is one edit
    assert (
        fact["subject"] in fact["prompt"]
        and len(fact.get("rephrase", ())) == MEASURED[name].get("generalisation", 0) // 2
    )
    if name != "counterfact":
        # once fetched, it needs no Hub any more
        model = f"lab/pico@{base[1]}"
        offline = client("eval", model, *words(name, "--json")[2:], offline=True)
        assert offline.json["counts"] == MEASURED[name]


def test_what_cannot_be_fetched_asks_for_a_path(hub: Hub, tmp_path: Path) -> None:
    code = "import sys; from hubedit.cli.app import run; sys.exit(run(sys.argv[1:]))"
    for name, more, message in (
        ("away", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot reach http://127.0.0.1:9"),
        ("cold", {"HF_HUB_OFFLINE": "1"}, "is not in the local cache, and HF_HUB_OFFLINE is set"),
    ):
        ran = hub.python(code, tmp_path / name, *words("zsre"), **more)
        lines = [line for line in ran.stderr.splitlines() if line.startswith(("error:", "hint:"))]
        assert ran.returncode == 2 and len(lines) == 2 and "Traceback" not in ran.stderr, ran.stderr
        assert lines[0].startswith("error: data set zsre: ") and message in lines[0]
        assert "the path of its file" in lines[1]
