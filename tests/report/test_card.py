"""The card: what the Hub reads, what a person reads, and nothing that was not measured or is private."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from hubedit.report.card import patch_card

COMMIT = "a" * 40
RECORD: dict[str, Any] = {
    "base": {"ref": "Qwen/Qwen2.5-7B", "commit": COMMIT},
    "facts": {"count": 2},
    "method": "intattn",
    "layers": [4, 5],
    "alpha": {"4": 0.25, "5": 0.25},
    "adapter": {"rank": 8, "sites": {"model.layers.4.mlp.down_proj": {"rank": 2, "norm": 1.0}}},
    "seed": 0,
    "packages": {"hubedit": "0.1.0"},
    "command": ["hubedit", "apply", "facts.jsonl", "--model", "Qwen/Qwen2.5-7B"],
}


def outcome(number: int, success: bool = True) -> dict[str, Any]:
    return {
        "prompt": f"The | capital *of* <b>{number}</b>\nis",
        "target": "Lyon",
        "before": "Paris",
        "after": "Lyon" if success else "Paris",
        "success": success,
        "probability_before": 0.25,
        "probability_after": 0.75,
    }


def report(facts: int = 2, **more: Any) -> dict[str, Any]:
    measured = {"metrics": {"success": 1.0, "locality": 0.875}, "counts": {"success": facts, "locality": 8}}
    return {**measured, "harmonic_mean": 0.933, "facts": [outcome(n) for n in range(facts)], **more}


def test_the_hub_reads_its_metadata() -> None:
    data = ModelCard(patch_card(RECORD, report())).data.to_dict()  # type: ignore[no-untyped-call]
    assert data == {
        "base_model": "Qwen/Qwen2.5-7B",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "knowledge-editing", "hubedit"],
    }


def test_the_loading_code_pins_both_revisions() -> None:
    card = patch_card(RECORD, report(), name="me/patch", commit="b" * 40)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert f'"Qwen/Qwen2.5-7B", revision="{COMMIT}"' in code
    assert f'"me/patch", revision="{"b" * 40}"' in code
    assert "commit of the patch" in patch_card(RECORD, report())


def test_what_was_measured_is_there_and_what_was_not_is_absent() -> None:
    card = patch_card(RECORD, report(perplexity_before=10.0, perplexity_after=10.5))
    for line in (
        "| Success: the prompt gives the new answer (2) |  | 100.0 % |",
        "| Locality: other prompts about the same subject are unchanged (8) |  | 87.5 % |",
        "| Mean probability of the target | 0.25 | 0.75 |",
        "| Perplexity on other text | 10 | 10.5 |",
        "| Layers | 4, 5 |",
        "| Attention's share (alpha) | 0.25 |",
    ):
        assert line in card.splitlines()
    bare = patch_card({"base": RECORD["base"], "facts": {"count": 1}})
    assert "1 edited fact for" in bare and "The patch was not evaluated." in bare
    for word in (
        "None",
        "nan",
        "Perplexity",
        "Before",
        "Made with",
        "Portability",
        "What was edited",
        "Rank",
    ):
        assert word not in bare


def test_prompts_cannot_break_the_table() -> None:
    row = next(line for line in patch_card(RECORD, report()).splitlines() if "capital" in line)
    assert row == r"| The \| capital \*of\* &lt;b&gt;0&lt;/b&gt; is | Paris | Lyon | Lyon | yes |"


@pytest.mark.parametrize(("facts", "folded"), [(20, False), (21, True)])
def test_long_tables_are_folded(facts: int, folded: bool) -> None:
    card = patch_card(RECORD, report(facts))
    assert ("<details>" in card) is folded
    assert card.count("| Paris | Lyon |") == facts


def test_very_long_tables_are_cut() -> None:
    card = patch_card(RECORD, report(1234))
    assert card.count("| Paris | Lyon |") == 500 and "And 734 facts more" in card


def test_failures_are_listed_and_facts_can_be_kept_out() -> None:
    outcomes = [outcome(0), outcome(1, success=False)]
    assert "1 fact of the 2 did not change" in patch_card(RECORD, report(facts=2) | {"facts": outcomes})
    private = patch_card(RECORD, report(), with_facts=False)
    assert "Lyon" not in private and "capital" not in private and "| 100.0 % |" in private


@pytest.mark.parametrize(
    "ref", ["/home/me/secret/my-model", "../secret/my-model/", r"C:\secret\my-model", "secret/my-model"]
)
def test_no_local_path_reaches_the_card(ref: str) -> None:
    command = [
        "hubedit",
        "apply",
        "/secret/a b/facts.jsonl",
        "--model",
        ref,
        f"--base={ref}",
        "--out",
        "~/secret/x",
    ]
    record = {
        **RECORD,
        "base": {"ref": ref, "commit": ""},
        "command": [*command, "--corpus", "secret/text.txt"],
    }
    card = patch_card(record, report(), name="/secret/patch")
    assert "secret" not in card
    assert 'base_model: "my-model"' in card
    assert "hubedit apply facts.jsonl --model my-model --base=my-model --out x --corpus text.txt" in card
