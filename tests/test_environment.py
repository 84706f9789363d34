"""How an edit is written down."""

from __future__ import annotations

from hubedit.environment import portable


def test_words_without_this_machine_s_folders() -> None:
    assert portable("/home/me/model/") == "model"
    assert portable("~/facts.jsonl") == "facts.jsonl"
    assert portable("../up/facts.jsonl") == "facts.jsonl"
    assert portable("--model=/srv/m") == "--model=m"
    for same in ("data/facts.jsonl", "Qwen/Qwen2.5-7B@main", "--alpha", "0.3", "..."):
        assert portable(same) == same
