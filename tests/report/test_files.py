"""A folder's card, page and plots are made again from its own files, each whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hubedit.errors import HubEditError
from hubedit.report.files import read_source, rebuild, shown_files
from tests.report.examples import full_report, merged_record, outcome, record, report

# drawing is slow, and most tests are about other things
PLAIN = record(trace=None, sites={}, adapter={})


def folder_of(
    place: Path, own: dict[str, Any] | None, made: dict[str, Any] | None, facts: bool = True
) -> Path:
    place.mkdir(parents=True)
    if own is not None:
        (place / "hubedit.json").write_text(json.dumps(own), encoding="utf-8")
    if made is not None:
        (place / "report.json").write_text(json.dumps(made), encoding="utf-8")
    if facts:
        row = {"prompt": "A\u2028b is", "subject": "A", "target": "c"}
        (place / "facts.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def content(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_everything_is_made_again_and_comes_out_the_same(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "patch", record(), full_report())
    own = content(place)
    names = rebuild(place)
    assert {"README.md", "report.html", "plots/heatmap.png", ".eval_results/gsm8k.yaml"} <= set(names)
    first = content(place)
    assert set(first) == set(own) | set(names)
    assert all(first[name] == own[name] for name in own)
    assert rebuild(place) == names and content(place) == first
    card = ModelCard.load(place / "README.md")
    assert card.data.model_name == "patch"
    for name in names:
        if name.startswith("plots/"):
            assert f"]({name})" in card.text


def test_without_the_facts_nothing_is_quoted_and_old_figures_go(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "patch", PLAIN, full_report("SECRET"))
    rebuild(place)
    assert (place / "plots/relations.png").is_file()
    (place / "facts.jsonl").unlink()
    rebuild(place)
    assert not (place / "plots/relations.png").exists()
    for name in ("README.md", "report.html"):
        text = (place / name).read_text(encoding="utf-8")
        assert "SECRET" not in text and "are not published" in text and "plots/relations" not in text


def test_a_patch_that_was_not_evaluated(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "patch", {**PLAIN, "facts": {"count": 1}}, None)
    rebuild(place)
    text = (place / "README.md").read_text(encoding="utf-8")
    assert "| A b is | c |" in text and "The patch was not evaluated." in text


def test_a_report_alone_has_a_page_and_no_card(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "run", None, full_report("A prompt"), facts=False)
    assert "report.html" in rebuild(place) and not (place / "README.md").exists()
    source = read_source(place / "report.json")
    assert "A prompt" in source.page(source.plots)


def test_a_merged_model_reads_its_patches(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "model", merged_record(), None, facts=False)
    folder_of(place / "patches/1", PLAIN, report())
    folder_of(place / "patches/2", PLAIN, None)
    rebuild(place)
    text = (place / "README.md").read_text(encoding="utf-8")
    assert "base_model_relation: finetune" in text and "Patch 1" in text
    assert text.count("| A b is | c |") == 2
    (place / "patches/2/facts.jsonl").unlink()
    rebuild(place)
    text = (place / "README.md").read_text(encoding="utf-8")
    assert "A b is" not in text and "are not published" in text


def test_a_merged_card_says_how_its_patches_were_made(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "model", merged_record(), None, facts=False)
    folder_of(place / "patches/1", record(), report())
    large = record(sites={"m.1.down": {"layer": 1, "kind": "mlp", "relative_norm": 22.4}}, method="memit")
    folder_of(place / "patches/2", large, None)
    rebuild(place)
    text = (place / "README.md").read_text(encoding="utf-8")
    assert "| Patch 1: Attention's share (alpha) | 0.25 (measured" in text
    assert "| Patch 2: Method | MEMIT" in text and "| Patch 2: Size of the changes | 22 times" in text
    assert "larger than the weight itself (up to 22 times its norm)" in text
    assert "hubedit apply" not in text, "one command does not make both again"
    one = merged_record()
    one["lineage"] = one["lineage"][:1]
    place = folder_of(tmp_path / "one", one, None, facts=False)
    folder_of(place / "patches/1", record(), report())
    rebuild(place)
    text = (place / "README.md").read_text(encoding="utf-8")
    assert "| Layers | 4, 5 (from the causal trace) |" in text and "Patch 1:" not in text
    assert "hubedit apply facts.jsonl" in text and "Alpha is attention's share" in text
    assert "| Merged with | hubedit 0.1.0 |" in text and "are not published" not in text


def test_a_page_is_never_larger_than_a_megabyte(tmp_path: Path) -> None:
    made = report() | {"facts": [outcome(n, prompt=f"{n} " + "x" * 900) for n in range(3000)]}
    files = shown_files(read_source(folder_of(tmp_path / "p", PLAIN, made)))
    assert len(files["report.html"]) < 1_000_000


def test_links_into_a_cache_are_replaced_and_not_followed(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "patch", PLAIN, report())
    blob = tmp_path / "blob"
    blob.write_text("old")
    (place / "README.md").symlink_to(blob)
    rebuild(place)
    assert blob.read_text() == "old" and not (place / "README.md").is_symlink()


def test_a_failed_write_leaves_the_old_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder_of(tmp_path / "patch", PLAIN, report())
    rebuild(place)
    before = content(place)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(HubEditError, match="No space left"):
        rebuild(place)
    assert content(place) == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("hubedit.json", "{", "cannot be read"),
        ("report.json", "[]", "no JSON object"),
        ("report.json", '{"metrics": []}', "'metrics' is not what hubedit writes"),
        ("facts.jsonl", "{", "cannot be read"),
    ],
)
def test_damaged_files_are_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    place = folder_of(tmp_path / "patch", PLAIN, report())
    (place / name).write_text(text)
    with pytest.raises(HubEditError, match=said):
        rebuild(place)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HubEditError, match="holds neither"):
        rebuild(tmp_path)
    with pytest.raises(HubEditError, match="not a folder"):
        rebuild(tmp_path / "nowhere")
