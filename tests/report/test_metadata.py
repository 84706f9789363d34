"""What the Hub reads: huggingface_hub's own classes read it back, and it passes what the Hub checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from hubedit.report.card import merged_card, patch_card
from hubedit.report.licence import licence_metadata, licence_of
from hubedit.report.metadata import eval_files, eval_names, eval_results
from tests.report.examples import COMMIT, full_report, merged_record, record, report

REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+|[\w-][\w.-]*")


def check(data: dict[str, Any]) -> None:
    """What the Hub's own validator (POST /api/validate-yaml) refuses, as far as it is documented."""
    assert set(data) <= {
        *("base_model", "base_model_relation", "library_name", "pipeline_tag", "tags", "model-index"),
        *("license", "license_name", "license_link"),
    }
    if "base_model" in data:
        assert REPO.fullmatch(data["base_model"])
        assert data["base_model_relation"] in ("adapter", "finetune")
    if "license" in data:
        assert re.fullmatch(r"[a-z0-9.+-]+", data["license"])
    assert all(isinstance(tag, str) and re.fullmatch(r"[\w:/.-]+", tag) for tag in data["tags"])
    assert data["pipeline_tag"] == "text-generation"
    for entry in data.get("model-index", ()):
        assert entry["name"] and isinstance(entry["name"], str)
        assert entry["results"]
        for result in entry["results"]:
            assert result["task"]["type"]
            assert result["dataset"]["type"] and result["dataset"]["name"]
            for metric in result["metrics"]:
                assert metric["type"]
                assert isinstance(metric["value"], (int, float))
                assert metric["value"] == metric["value"]


def loaded(card: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    file = folder / "README.md"
    file.write_text(card, encoding="utf-8")
    read = metadata_load(file)
    assert isinstance(read, dict)
    return ModelCard.load(file), read


@pytest.mark.parametrize("made", [report(), full_report(), {}])
def test_a_patch_card_is_read_back(made: dict[str, Any], tmp_path: Path) -> None:
    card, data = loaded(patch_card(record(), made, name="me/patch"), tmp_path)
    check(data)
    assert data["base_model"] == "Qwen/Qwen2.5-7B" and data["base_model_relation"] == "adapter"
    assert (data["library_name"], data["license"]) == ("peft", "apache-2.0")
    assert data["tags"] == [
        *("base_model:adapter:Qwen/Qwen2.5-7B", "lora", "transformers"),
        *("knowledge-editing", "model-editing", "hubedit"),
    ]
    assert (card.data.eval_results or []) == eval_results(made)
    assert ("model-index" in data) is bool(made)


def test_a_merged_card_is_read_back(tmp_path: Path) -> None:
    card, data = loaded(merged_card(merged_record(), full_report(), "me/merged"), tmp_path)
    check(data)
    assert data["base_model_relation"] == "finetune" and data["library_name"] == "transformers"
    assert data["tags"] == ["knowledge-editing", "model-editing", "hubedit"]
    assert card.data.model_name == "merged"
    assert card.data.eval_results == eval_results(full_report())


def test_results_round_trip_through_the_model_index() -> None:
    results = eval_results(full_report())
    assert len(results) > 8
    name, back = model_index_to_eval_results(eval_results_to_model_index("x", results))
    assert (name, back) == ("x", results)
    success = next(r for r in results if r.metric_name == "Success")
    assert success.metric_value == 100.0
    assert success.metric_args == {"n": 2, "before": 0.0, "interval_95": [90.0, 100.0]}
    # two groups of figures never share a data set, because the Hub would show one's name for both
    names: dict[str, set[str]] = {}
    for result in results:
        names.setdefault(result.dataset_type, set()).add(result.dataset_name)
    assert all(len(group) == 1 for group in names.values())


def test_what_was_not_measured_is_no_result() -> None:
    assert eval_results({"metrics": {"success": None}, "metrics_before": {"success": 0.1}}) == []


def test_a_local_base_is_not_linked(tmp_path: Path) -> None:
    _, data = loaded(patch_card(record(base={"ref": "/home/me/gpt2", "commit": ""}), report()), tmp_path)
    check(data)
    assert "base_model" not in data
    assert not [tag for tag in data["tags"] if tag.startswith("base_model")]


@pytest.mark.skipif(not hasattr(huggingface_hub, "EvalResultEntry"), reason="an older huggingface_hub")
def test_standard_tasks_get_a_file_of_their_own() -> None:
    import importlib

    from huggingface_hub import parse_eval_result_entries

    files = eval_files(full_report())
    assert list(files) == [".eval_results/gsm8k.yaml"] and set(files) <= set(eval_names())
    (entry,) = parse_eval_result_entries(importlib.import_module("yaml").safe_load(*files.values()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 40.5)
    assert entry.date == "2026-11-21"
    assert entry.notes == "lm-eval gsm8k, exact_match,strict-match, n = 1,319"
    assert eval_files(report()) == {}
    assert eval_files({"tasks": {"gsm8k": {"exact_match": {"before": 0.4}}}}) == {}


@pytest.mark.parametrize(
    ("head", "known"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: other\nlicense_name: x\nlicense_link: LICENSE", None),
        ("tags: [a]", {}),
        ("license: [", {}),
        ("- a", {}),
    ],
)
def test_the_licence_is_read_from_the_bases_card(
    head: str, known: dict[str, Any] | None, tmp_path: Path
) -> None:
    assert licence_of(tmp_path) == {}
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# x\n", encoding="utf-8")
    expected = (
        {"license": "other", "license_name": "x", "license_link": "LICENSE"} if known is None else known
    )
    assert licence_of(tmp_path) == expected


def test_a_licence_file_of_the_base_is_linked_to() -> None:
    own = {"license": "other", "license_name": "llama3", "license_link": "LICENSE"}
    link = f"https://huggingface.co/o/n/blob/{COMMIT}/LICENSE"
    assert licence_metadata({"licence": own}, "o/n", COMMIT) == {**own, "license_link": link}
    assert licence_metadata({"licence": own}, "", "") == {"license": "other", "license_name": "llama3"}
    assert licence_metadata({"licence": {"license": "x: y\n"}}, "o/n", COMMIT) == {}
    assert licence_metadata({}, "o/n", COMMIT) == {}


def test_what_is_called_exact_is_exact() -> None:
    made = report(exact_match={"after": {"success": 0.5}, "n": {"success": 8}})
    kinds = {(r.dataset_type, r.metric_name): r.metric_type for r in eval_results(made)}
    assert kinds[("edited-facts", "Success")] == "prefix_match"
    assert kinds[("edited-facts-exact", "The prompt")] == "exact_match"
