"""The published numbers are those of the paper's supplement, read from its text a second way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hubedit.bench.published import JOINT, printed_numbers, published

TEXT = Path(__file__).with_name("supplement.txt")


def supplement() -> dict[int, list[list[str]]]:
    """The cells of each table of the supplement, row by row, as printed."""
    tables: dict[int, list[list[str]]] = {}
    for line in TEXT.read_text(encoding="utf-8").splitlines():
        if line.startswith("Table"):
            number = int(line.removeprefix("Table ").rstrip(":"))
            tables[number] = []
        else:
            tables[number].append(line.split("\t"))
    return tables


def test_every_printed_number_is_there_once() -> None:
    heads = {1: 1, 2: 1, 3: 2, 4: 2, 5: 2}
    for number, rows in supplement().items():
        printed = Counter(cell for row in rows[1:] for cell in row[heads[number] :])
        assert Counter(p.text for p in published() if p.table == number) == printed
    assert len(published()) == 80 + 88 + 24 + 8 + 24


def test_numbers_of_the_sweep_stand_at_their_alpha() -> None:
    names = ("edit_success", "portability_mean", "locality_mean")
    keys = [*(f"teacher-forced/{name}" for name in names), "text/fluency"]
    for number, model in ((1, "Mistral-7B"), (2, "Qwen2.5-7B")):
        head, *rows = supplement()[number]
        for column, alpha in enumerate(head[1:], 1):
            found = printed_numbers((1, 2), model, "ZsRE", "intattn", f"{float(alpha):g}")
            assert [found[key].text for key in keys] == [row[column] for row in rows]


def test_single_numbers() -> None:
    def one(table: int, model: str, data: str, method: str, alpha: str, metric: str) -> float:
        return float(printed_numbers((table,), model, data, method, alpha)[metric].text)

    success = "teacher-forced/edit_success"
    assert one(1, "Mistral-7B", "ZsRE", "intattn", "0.12", success) == 92.95
    assert one(2, "Qwen2.5-7B", "ZsRE", "intattn", "1", "text/fluency") == 598.27
    assert one(3, "Qwen2.5-7B", "ZsRE", "intattn", JOINT, "teacher-forced/locality_mean") == 34.40
    assert one(3, "Mistral-7B", "ZsRE", "intattn", "0", "teacher-forced/portability_mean") == 55.71
    assert one(4, "Mistral-7B", "ZsRE", "intattn-rome", "", success) == 89.56
    assert one(4, "Qwen2.5-7B", "ZsRE", "rome", "", success) == 79.06
    assert one(5, "Qwen2.5-7B", "anything", "before", "", "tasks/gsm8k/exact_match") == 65.88
    assert one(5, "Mistral-7B", "ZsRE", "r-rome", "", "text/perplexity") == 6948.70


def test_names_are_compared_without_their_spelling_and_nothing_else_matches() -> None:
    assert printed_numbers((2,), "qwen2.5-7b", "zsre", "intattn", "0.2")
    for model, data, method in (
        ("Qwen2.5-7B-Instruct", "ZsRE", "intattn"),
        ("Qwen2.5-7B", "CounterFact", "intattn"),
        ("Qwen2.5-7B", "ZsRE", "memit"),
    ):
        assert not printed_numbers((1, 2), model, data, method, "0.2")
    assert not printed_numbers((4,), "my-model", "ZsRE", "rome")
