"""Facts as they are typed on a command line: "The capital of Japan is -> Kyoto"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hubedit.errors import FactsError
from hubedit.facts.load import LoadedFacts, from_records
from hubedit.facts.source import Raw
from hubedit.facts.types import Fact

WHERE = "--fact"
_MARKED = re.compile(r"\[([^\[\]]+)\]")
_WORD = re.compile(r"[^\W_](?:[\w'’.&+-]*[^\W_])?")
# words that open a sentence and name nothing
_OPENERS = frozenset(
    "a an the this that these those in on at of for from by to as what who whom whose which when where why "
    "how is are was were do does did has have can will it he she they we i you my your his her its their "
    "our".split()
)
# lower-case words inside a name
_INSIDE = frozenset("of the and de la le du des del della di da von van der den el al bin y und et".split())


def typed_facts(lines: Sequence[str]) -> LoadedFacts:
    """The facts of lines "PROMPT -> TARGET". The subject is the prompt's last name (`named_subject`), or the
    words in square brackets: "The capital of [Japan] is -> Kyoto".

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


def named_subject(prompt: str) -> str:
    """The last run of capitalised words in a prompt, "" where there is none.

    A word that opens a sentence and names nothing does not count ("The", "Who"); words such as "of" join
    those on both sides ("Statue of Liberty"); a possessive ending is no part of the name.
    """
    found: list[tuple[int, int]] = []
    start = end = 0
    pending = False  # since the name's last word only joining words were read
    for word in _WORD.finditer(prompt):
        gap = prompt[end : word.start()]
        text = word[0]
        opens = not prompt[: word.start()].strip(" \"'([¿¡")
        capital = any(c.isupper() for c in text) and not (opens and text.casefold() in _OPENERS)
        joined = pending and not gap.strip()
        if capital and joined:
            found[-1] = (start, word.end())
        elif capital:
            start = word.start()
            found.append((start, word.end()))
        possessive = text.endswith(("'s", "’s"))
        if possessive and capital:
            found[-1] = (start, word.end() - 2)
        pending = (capital and not possessive) or (joined and text in _INSIDE)
        end = word.end()
    return prompt[slice(*found[-1])] if found else ""


def written(fact: Fact) -> str:
    """A fact's prompt, subject and target as a line that `typed_facts` reads."""
    before, after = fact.template
    marked = fact.prompt if named_subject(fact.prompt) == fact.subject else f"{before}[{fact.subject}]{after}"
    return f"{marked} -> {fact.target}"


def _record(line: str) -> dict[str, Any]:
    """The fields of one line. Raises FactsError."""
    prompt, arrow, target = line.replace("→", "->").strip().rpartition("->")
    prompt, target = prompt.rstrip(), target.strip()
    if not (arrow and prompt and target):
        raise FactsError(f'"{line}" is no fact', f'write it as {WHERE} "The capital of Japan is -> Kyoto"')
    marked = _MARKED.findall(prompt)
    if len(marked) > 1:
        raise FactsError(f'"{line}" marks {len(marked)} subjects', "put one pair of square brackets")
    prompt = _MARKED.sub(r"\1", prompt)
    subject = marked[0] if marked else named_subject(prompt)
    if not subject:
        raise FactsError(
            f'"{prompt}" has no capitalised name',
            f'mark what the fact is about: {WHERE} "The capital of [Japan] is -> Kyoto"',
        )
    return {"prompt": prompt, "subject": subject, "target": target}
