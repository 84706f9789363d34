"""The card: what a person reads, and nothing that was not measured or is private."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from hubedit.report.card import merged_card, patch_card
from hubedit.report.page import html_report
from hubedit.report.plots import plots
from tests.report.examples import COMMIT, NASTY, code, full_report, merged_record, outcome, record, report

BARE = {"base": record()["base"], "facts": {"count": 1}}


def test_the_loading_code_pins_both_revisions_in_three_lines() -> None:
    card = patch_card(record(), report(), name="me/patch", commit="b" * 40)
    compile(code(card), "card", "exec")
    lines = [line for line in code(card).splitlines() if "from_pretrained" in line]
    assert len(lines) == 3
    assert sum(f'"Qwen/Qwen2.5-7B", revision="{COMMIT}"' in line for line in lines) == 2
    assert f'"me/patch", revision="{"b" * 40}"' in lines[2]
    assert "commit of the patch" not in card
    assert "commit of the patch" in patch_card(record(), report())


def test_a_local_base_is_loaded_from_a_path_and_never_from_the_hub() -> None:
    card = patch_card({**record(), "base": {"ref": "/home/me/gpt2", "commit": ""}}, report())
    assert '"path/to/gpt2"' in code(card) and '("gpt2"' not in card
    assert "huggingface.co/gpt2" not in card


def test_what_was_measured_is_there_and_what_was_not_is_absent() -> None:
    card = patch_card(record(), report(perplexity_before=10.0, perplexity_after=10.5))
    for line in (
        "| Success: the prompt gives the new answer |  | 100.0 % | 2 |",
        "| Locality: answers to other prompts about the same subject begin as before |  | 87.5 % | 8 |",
        "| Mean probability of the target (geometric mean over its tokens) | 0.25 | 0.75 | 2 |",
        "| Perplexity | 10 | 10.5 |",
        "| Layers | 4, 5 (from the causal trace) |",
        "The base is licensed under `apache-2.0`; the same terms hold here.",
    ):
        assert line in card.splitlines(), line
    assert "| Attention's share (alpha) | 0.25 (measured: attention's share" in card
    bare = patch_card(BARE)
    assert "1 edited fact for" in bare and "The patch was not evaluated." in bare
    for word in "None nan Perplexity Before broke Made~with Portability What~was~edited Rank Figures".split():
        assert word.replace("~", " ") not in bare


def test_everything_measured_reaches_the_card() -> None:
    card = patch_card(record(), full_report("A prompt"), plots=plots(record(), full_report("A prompt")))
    for text in (
        "100.0 % (90.0 to 100.0)",
        "95 % bootstrap",
        "KnowEdit",
        "CounterFact",
        "0.405 ± 0.013",
        "### Facts broken by other facts of the batch: 1",
        "### Neighbours that flipped: 12",
        "And 2 more, in `report.json`.",
        "### The worst cases",
        "Every fact took.",
        "1 of 2 records have no rephrasings",
        "![Causal trace",
        "(plots/heatmap.png)",
        "(plots/probability.png)",
        "| Date | 2026-11-21 |",
        '"corpus": "self"',
        "hubedit apply facts.jsonl --model Qwen/Qwen2.5-7B",
    ):
        assert text in card, text


def test_a_card_says_how_the_patch_is_made_again() -> None:
    again = f"hubedit apply --from me/corrections --model Qwen/Qwen2.5-7B@{COMMIT}"
    card = patch_card(record(), report(), name="me/corrections")
    assert f"```bash\n{again}\n```" in card
    assert again in html_report(record(), report(), name="me/corrections")
    # facts that are not there, and a step of a longer history, make nothing again
    assert "--from" not in patch_card(record(), report(), name="me/corrections", with_facts=False)
    assert "--from" not in patch_card(record(on={"id": "1" * 64}), report(), name="me/corrections")
    local = record(base={"ref": "/home/ada/my model", "commit": ""})
    assert "hubedit apply --from patch --model 'path/to/my model'" in patch_card(local, report())


def test_attention_s_share_of_nothing_is_the_default() -> None:
    card = patch_card(record(alpha={"4": 0.0, "5": 0.0}, alpha_from="given"), report())
    assert "| Attention's share (alpha) | 0 (the default) |" in card
    # the paper's own method traces it by default
    card = patch_card(record(method="intattn", alpha={"4": 0.0, "5": 0.0}, alpha_from="given"), report())
    assert "| Attention's share (alpha) | 0 (as set) |" in card
    card = patch_card(record(alpha={"4": 0.5, "5": 0.5}, alpha_from="given"), report())
    assert "| Attention's share (alpha) | 0.5 (as set) |" in card


def test_every_table_has_as_many_cells_as_its_head_whatever_the_facts_say() -> None:
    made = full_report()
    made["facts"] = [outcome(0, prompt=NASTY), outcome(1)]
    card = patch_card(record(), made, plots=plots(record(), made))
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    width, cells, rows = 0, 0, 0
    for token in tokens:
        if token.type == "thead_open":
            width = 0
        width += token.type == "th_open"
        cells += token.type == "td_open"
        if token.type == "tr_close" and cells:
            assert cells == width
            cells, rows = 0, rows + 1
    assert rows >= 40
    assert not [t for t in tokens if t.type == "html_block" and "script" in t.content]
    inline = [c for t in tokens for c in t.children or ()]
    assert {c.content for c in inline if c.type == "html_inline"} <= {"<summary>", "</summary>"}
    links = [c.attrGet("href") for c in inline if c.type == "link_open"]
    assert links == ["https://huggingface.co/Qwen/Qwen2.5-7B"]


@pytest.mark.parametrize(("facts", "folded"), [(20, False), (21, True)])
def test_long_tables_are_folded(facts: int, folded: bool) -> None:
    card = patch_card(record(config={}), report(facts))
    assert ("<summary>" in card.replace("<summary>Resolved", "")) is folded
    assert card.count("| Paris | Lyon |") == facts


def test_very_long_tables_are_cut_and_failures_come_first() -> None:
    made = report(1234)
    made["facts"][1200] = outcome(1200, success=False)
    card = patch_card(record(), made)
    assert card.count("| Paris | Lyon | Lyon |") == 499 and "And 734 facts more" in card
    assert "Land1200" in card and len(card) < 300_000
    huge = patch_card(record(), {"facts": [outcome(n, prompt=f"{n} " + "x" * 5000) for n in range(5000)]})
    assert len(huge) < 300_000


def test_failures_are_counted() -> None:
    made = report(facts=2) | {"facts": [outcome(0), outcome(1, success=False)]}
    card = patch_card(record(), made)
    assert "1 fact of the 2 did not change" in card
    assert "### Facts that did not take: 1" in card
    assert "| The capital of Land1 is | Lyon | Paris |" in card


def test_facts_can_be_kept_out_and_the_card_says_so() -> None:
    made = full_report("SECRET")
    private = patch_card(
        record(), made, with_facts=False, plots=plots(record(), made, with_facts=False), facts=made["facts"]
    )
    for word in ("SECRET", "Lyon", "capital", "Paris", "Land0"):
        assert word not in private
    assert "are not published" in private and "| 100.0 % (90.0 to 100.0) |" in private
    assert "Neighbours that flipped: 12" in private


def test_facts_are_shown_when_nothing_was_read() -> None:
    card = patch_card(record(), facts=[{"prompt": "A is", "target": "b"}, {"src": "no fact of ours"}])
    assert "| Prompt | Target |" in card and "| A is | b |" in card


def test_a_report_about_other_facts_does_not_say_what_was_edited() -> None:
    facts = [{"prompt": "A is", "target": "b"}, {"prompt": "The capital of Land0 is", "target": "Lyon"}]
    card = patch_card(record(), report(5), facts=facts)
    assert "| A is |  |  | b | not measured |" in card and "Land1" not in card
    assert "1 of 2 facts were measured." in card
    assert "| The capital of Land0 is | Paris | Lyon | Lyon | yes |" in card


def test_a_model_that_was_not_edited_has_no_failures() -> None:
    alone = {"metrics_before": {"success": 0.0}, "facts": [{"prompt": "A", "target": "b", "success": False}]}
    card = patch_card(record(), alone)
    assert "did not take" not in card and "did not change" not in card


@pytest.mark.parametrize(
    "ref", ["/home/me/secret/my-model", "../secret/my-model/", r"C:\secret\my-model", "secret/my-model"]
)
def test_no_local_path_reaches_the_card(ref: str) -> None:
    command = ["hubedit", "apply", "/secret/a b/facts.jsonl", "--model", ref, f"--base={ref}"]
    command += ["--out", "secret/x", "--corpus", "secret/text.txt"]
    made = full_report()
    made["evaluated"] |= {"model": ref, "commit": "", "command": ["hubedit", "eval", ref]}
    made["notes"] = ["left out: /secret/facts.jsonl"]
    base = {"ref": ref, "commit": ""}
    own = record(
        base=base, command=command, statistics={"corpus": "/secret/text.txt"}, config={"corpus": "~/secret/t"}
    )
    for card in (
        patch_card(own, made, name="/secret/patch"),
        merged_card(
            {**merged_record(base=base), "config": own["config"], "command": command}, made, "/secret/m"
        ),
    ):
        assert "secret" not in card and "private" not in card
    card = patch_card(own, made, name="/secret/patch")
    assert "hubedit apply facts.jsonl --model my-model --base=my-model --out x --corpus text.txt" in card


def test_the_configuration_cannot_leave_its_block() -> None:
    card = patch_card(record(config={"corpus": "a```b\n# c"}), report())
    assert "````json" in card


def test_a_patch_on_top_says_what_before_means() -> None:
    own = record(on={"id": "ab" * 32, "facts": 3})
    made = report(on={"facts": 3, "success_before": 1.0, "success_after": 2 / 3}, perplexity_before=9.0)
    card = patch_card(own, made)
    assert "made on top of an older patch (abababababab)" in card and "perplexity too" in card
    assert "of the 3 facts of the older patch, 100.0 % were answered before the edit and 66.7 % after" in card
    # `hubedit eval` asks the base itself
    assert "older patch (" not in patch_card(own, report(evaluated={"model": "m"}))
    assert "older patch" not in patch_card(record(), report())


def test_a_change_larger_than_its_weight_is_remarked_on() -> None:
    def sized(*sizes: float) -> dict[str, Any]:
        sites = {f"m.{n}.down": {"layer": n, "kind": "mlp", "relative_norm": s} for n, s in enumerate(sizes)}
        return record(sites=sites)

    card = patch_card(sized(0.5, 6.81, 1.2), report())
    assert "| Size of the changes | 0.5 to 6.8 times the weight's own norm (Frobenius) |" in card
    assert "The change of 2 of the 3 edited weights is larger than the weight itself (up to 6.8" in card
    assert "The change of the edited weight is larger" in patch_card(sized(1.5), report())
    small = patch_card(sized(0.02, 0.9), report())
    assert "0.02 to 0.9 times" in small and "larger than the weight" not in small
    assert "larger than the weight" in html_report(sized(1.5), report())


def test_the_card_says_no_more_of_the_method_than_is_so() -> None:
    joint = patch_card(record(), report())
    assert "closed form" in joint and "Alpha is attention's share of the length" in joint
    alone = patch_card(record(alpha={"1": 0.0, "2": 0.0}), report())
    assert "only down projections of MLPs" in alone and "got that share" not in alone
    paper = patch_card(record(method="intattn"), report())
    assert "the residual stream" in paper and "Alpha is attention's share of the residual:" in paper
    plain = patch_card(record(method="memit", alpha={}), report())
    assert "closed form" in plain and "Alpha is" not in plain
    tuned = patch_card(record(config={}, method="lora", alpha={}), report())
    assert "trained by gradient descent" in tuned and "closed form" not in tuned
    assert "closed form" not in patch_card({**BARE, "method": "unheard of"})


def test_a_report_of_apply_says_how_it_was_measured() -> None:
    made = report(interval_method="95 % percentiles", perplexity_after=3.0)
    text = {"corpus": "self", "rows": 48, "used": False}
    card = patch_card(record(), {**made, "text": text})
    assert "measured by hubedit apply when it wrote the patch" in card
    assert "| Intervals | 95 % percentiles |" in card
    assert "48 rows that the base model wrote itself; n counts their tokens." in card
    assert "The edit was not made or chosen on them." in card
    seen = patch_card(record(), {**made, "text": {**text, "corpus": "/home/me/wiki.txt", "used": True}})
    assert "48 rows of wiki.txt;" in seen and "chosen on the same rows, so they flatter it." in seen
    evaluated = patch_card(record(), {**made, "evaluated": {"date": "2026-11-21"}})
    assert "measured by hubedit apply" not in evaluated


def test_other_facts_about_an_edited_subject_that_changed_are_quoted() -> None:
    case = {"fact": "f0", "prompt": "Land0 speaks", "before": "French", "after": "Dutch"}
    card = patch_card(record(), report(damage={"flipped_same_subject": [case], "flipped_neighbours": []}))
    assert "### Other facts about an edited subject that changed: 1" in card
    assert "| Land0 speaks | French | Dutch |" in card and "No neighbour changed its answer." in card


def test_what_was_not_looked_for_is_not_taken_for_unbroken() -> None:
    card = patch_card(record(), report(damage={}))
    assert "### Other facts\n\nNot measured: the facts have no locality prompts" in card
    asked = patch_card(record(), report(damage={"flipped_neighbours": []}))
    assert "Not measured: the facts" not in asked
