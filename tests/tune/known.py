"""Facts that a random model "knows": what it happens to say to a prompt is taken for the truth."""

from __future__ import annotations

from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy

_TEMPLATES = ("The capital of {} is", "The official language of {} is", "The headquarters of {} are in")
_SUBJECTS = (
    "France Italy Japan Brazil Austria Germany Egypt Sudan Spain Paris Rome Tokyo Warsaw Ulm Vienna "
    "Madrid Cologne London Kyoto California Apple Microsoft Windows Toyota Ford"
).split()


def known_facts(em: EditableModel) -> list[Fact]:
    """One fact a prompt whose continuation begins with a whole word; targets all alike."""
    pairs = [(t.format(s), s) for s in _SUBJECTS for t in _TEMPLATES]
    said = greedy(em, [prompt for prompt, _ in pairs], 8)
    facts = []
    for (prompt, subject), text in zip(pairs, said, strict=True):
        words = text.split()
        if len(words) > 1 and gives(text, [words[0]]) and words[0].isascii():
            facts.append(Fact(prompt, subject, "Rome", ground_truth=(words[0],)))
    return facts
