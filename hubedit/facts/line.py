"""Facts as they are typed on a command line: "The capital of Japan is -> Kyoto"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hubedit.errors import FactsError
from hubedit.facts.find_subject import name_in
from hubedit.facts.load import LoadedFacts, from_records
from hubedit.facts.source import Raw
from hubedit.facts.types import Fact

WHERE = "--fact"
_MARKED = re.compile(r"\[([^\[\]]+)\]")


def typed_facts(lines: Sequence[str]) -> LoadedFacts:
    """The facts of lines "PROMPT -> TARGET". The subject is the words in square brackets, "The capital of
    [Japan] is -> Kyoto", or where there are none what is found in any fact without a subject.

    Raises FactsError, with every line that cannot be used and how to mend it.
    """
    records: list[Raw] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Raw(number, _record(line)))
        except FactsError as error:
            problems.append((number, f"{error.message}; {error.hint}"))
    return from_records(records, WHERE, problems)


def unmarked(prompt: str) -> str:
    """The prompt without the brackets around its subject."""
    return _MARKED.sub(r"\1", prompt)


def written(fact: Fact) -> str:
    """A fact's prompt, subject and target as a line that `typed_facts` reads."""
    before, after = fact.template
    found = name_in(fact.prompt) or fact.prompt.strip()
    prompt = fact.prompt if found == fact.subject else f"{before}[{fact.subject}]{after}"
    return f"{prompt} -> {fact.target}"


def _record(line: str) -> dict[str, Any]:
    """The fields of one line. Raises FactsError."""
    prompt, arrow, target = line.replace("→", "->").strip().rpartition("->")
    prompt, target = prompt.rstrip(), target.strip()
    if not (arrow and prompt and target):
        lacks = 'a "->"' if not arrow else 'an answer after "->"' if prompt else 'a prompt before "->"'
        raise FactsError(f'"{line}" lacks {lacks}', f'write it as {WHERE} "The capital of Japan is -> Kyoto"')
    marked = _MARKED.findall(prompt)
    if "[" in unmarked(prompt) or "]" in unmarked(prompt):
        raise FactsError(
            f'"{line}" has square brackets that mark no subject',
            "put one pair of them around its words, as in [Japan], and no other",
        )
    if len(marked) > 1:
        raise FactsError(f'"{line}" marks {len(marked)} subjects', "put one pair of square brackets")
    subject = {"subject": marked[0]} if marked else {}
    return {"prompt": unmarked(prompt), **subject, "target": target}
