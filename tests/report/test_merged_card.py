"""The card of a merged model: which patches are in it, and no figures but its own."""

from __future__ import annotations

import re
from typing import Any

from hubedit.report.card import merged_card
from tests.report.examples import COMMIT, code, full_report, merged_record, report


def test_a_merged_card_says_what_is_in_it_and_what_rounding_kept() -> None:
    card = merged_card(merged_record(), full_report("A prompt"), "me/merged", commit="c" * 40)
    compile(code(card), "card", "exec")
    assert code(card).count(f'"me/merged", revision="{"c" * 40}"') == 2
    assert "1. `patches/1`, id 000000000000, 2 facts" in card
    assert "3 facts edited" in card
    assert "| model.layers.4.mlp.down\\_proj.weight | 95.0 % in BF16 |" in card
    assert "byte for byte" in card
    assert "stored as `float16`" in merged_card(merged_record(converted="float16"))
    assert f'revision="{COMMIT}"' in card  # the unedited model


def test_figures_of_the_patches_are_not_passed_off_as_the_merged_models() -> None:
    reports = [report(2, metrics={"success": 0.75}), None]
    card = merged_card({**merged_record(), "reports": reports})
    assert "The merged model was not evaluated." in card
    assert "the merged model itself was not evaluated" in card
    assert "| Measure | Patch 1 |" in card and "| Success | 75.0 % (n = 2) |" in card
    assert "And 1 fact more, not published." in card and "Alpha is" not in card
    assert "| The capital of Land0 is | Lyon |" in card  # what was edited, not what the adapter said
    assert "model-index" not in card
    own = merged_card({**merged_record(), "reports": reports}, report())
    assert "Patch 1" not in own and "| Success: the prompt gives the new answer |  | 100.0 % | 2 |" in own


def test_a_merged_card_of_next_to_nothing() -> None:
    card = merged_card({})
    assert "None" not in card and re.search(r"^# the base model with edited facts$", card, re.MULTILINE)
    hidden: dict[str, Any] = {**merged_record(), "reports": [{"facts": [{"success": True}]}] * 2}
    assert "are not published" in merged_card(hidden)
