"""What makes a fact usable: checked after its fields are read, whatever schema they came in."""

from __future__ import annotations

from dataclasses import replace

from hubedit.facts.answers import normalise
from hubedit.facts.fact import Record
from hubedit.facts.find_subject import name_in
from hubedit.facts.text import braces_are_text, composed, fill, loose, spelling, whole_word
from hubedit.facts.types import Draft, Fact, Probe


def finish(draft: Draft, record: Record) -> Fact | None:
    """The fact of a draft, with placeholders filled and the subject spelled as its prompt spells it.

    None, with the faults in `record.problems`, when it cannot be used.
    """
    if not (draft.get("prompt") and draft.get("target")):
        # a missing or empty field was reported where it was read
        return None
    given = bool(draft.get("subject"))
    if not given and "{}" in draft["prompt"]:
        record.problems.append('"{}" stands for a subject that is not given; add "subject"')
        return None
    fact = Fact(**draft)
    if not given:
        record.notices.append(_found(fact))
    # braces that are text in the prompt are text in the fact's other prompts too
    literal = "{}" in fact.prompt and braces_are_text(fact.prompt, fact.subject)
    prompt = fact.prompt if literal else fill(fact.prompt, fact.subject)
    subject = spelling(prompt, fact.subject)
    if subject is None:
        what = f'the subject "{fact.subject}" is not in the prompt "{prompt}"'
        record.problems.append(
            f"{what}; write it as the prompt does, put {{}} where it belongs, or leave it out"
        )
        return None
    if subject != fact.subject:
        what = f'subject "{fact.subject}" is "{subject}" in the prompt'
        record.notices.append(f"{what}; the prompt's spelling is used")
    fact = replace(fact, prompt=prompt, subject=subject)
    if not literal:
        fact = replace(
            fact,
            question=fill(fact.question, subject),
            rephrase=tuple(dict.fromkeys(fill(p, subject) for p in fact.rephrase)),
            locality=_filled(fact.locality, subject),
            portability=_filled(fact.portability, subject),
        )
    elif "{}" not in subject:
        what = f'"{{}}" is kept as text, because the subject "{subject}" stands in the prompt'
        record.notices.append(f"{what}; leave out one of the two")
    fact = _new_answer(fact, record)
    _check_place(fact, record, given)
    _check_question(fact, record)
    _check_form(fact, record)
    return None if record.problems else fact


def _found(fact: Fact) -> str:
    """The notice of a fact whose subject was found in its prompt, or is all of it."""
    if name_in(fact.prompt):
        return f'no subject; "{fact.subject}" in the prompt "{fact.prompt}" is taken'
    what = f'no subject, and no name in the prompt "{fact.prompt}"'
    place = "the edit is made at its last token, which changes many other prompts too"
    return f"{what}; {place}; give the subject to choose the place"


def _filled(probes: tuple[Probe, ...], subject: str) -> tuple[Probe, ...]:
    return tuple(replace(p, prompt=fill(p.prompt, subject)) for p in probes)


def _new_answer(fact: Fact, record: Record) -> Fact:
    """Looks for a target that is no change, and for a prompt that gives the answer away."""
    old = tuple(answer for answer in fact.ground_truth if loose(answer) != loose(fact.target))
    if old != fact.ground_truth:
        what = f'target "{fact.target}" is in ground_truth too'
        if record.strict:
            record.problems.append(f"{what}; give the new answer as target, the old one as ground_truth")
        else:
            # benchmark files hold such records; they are kept, so that scores count the same records
            record.notices.append(f"{what}; kept, and taken out of ground_truth")
    after = fact.template[1].rstrip()
    start = len(after) - len(fact.target)
    if start >= 0 and after.endswith(fact.target) and whole_word(after, start, len(after)):
        what = f'the prompt already ends with the target "{fact.target}"'
        record.problems.append(f"{what}; end it right before the answer")
    return replace(fact, ground_truth=old)


def _check_place(fact: Fact, record: Record, given: bool) -> None:
    """The last occurrence of the subject is the one edited: it should not lie inside another word, and
    should be less than the prompt, where it was given."""
    if given and normalise(fact.subject) == normalise(fact.prompt):
        what = f'the subject "{fact.subject}" is the whole prompt, so the edit is bound to these very words'
        record.notices.append(f"{what}; name only what the fact is about")
    size = len(fact.subject)
    places = [i for i in range(len(fact.prompt)) if fact.prompt.startswith(fact.subject, i)]
    words = [i for i in places if whole_word(fact.prompt, i, i + size)]
    # scripts without spaces, and endings of other scripts, show no words
    glued = not words and _ascii_glued(fact.prompt, places[-1], places[-1] + size)
    if glued or (words and words[-1] != places[-1]):
        what = f'the last "{fact.subject}" in the prompt is part of another word'
        record.notices.append(f"{what}; reword it, because the last one is where the edit is made")


def _check_question(fact: Fact, record: Record) -> None:
    """The question is where the fact is edited too, so it must name the subject as the prompt does."""
    if fact.question and fact.subject not in fact.question:
        what = f'the subject "{fact.subject}" is not in the question "{fact.question}"'
        record.problems.append(f"{what}; write it as the prompt does, or leave the question out")


def _check_form(fact: Fact, record: Record) -> None:
    """What is kept as it was written, and is seldom meant."""
    probes = (*fact.locality, *fact.portability)
    for text in (fact.prompt, *fact.rephrase, *(probe.prompt for probe in probes)):
        # a line's end closes a chat template's turn; other white space changes how the answer is tokenised
        if text[-1:].isspace() and not text.endswith("\n"):
            what = f'the prompt "{text}" ends in white space, which is kept'
            record.notices.append(f"{what}; leave it out: most models read the answer otherwise after it")
            break
    for text in (fact.prompt, fact.target):
        if text != composed(text):
            what = f'"{text}" is not in composed form (NFC), and is kept so'
            record.notices.append(f"{what}; most models read composed characters")


def _ascii_glued(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] goes on on either side in the letters of one and the same word."""
    pairs = (text[start - 1 : start + 1] if start else "", text[end - 1 : end + 1])
    return any(len(pair) == 2 and pair.isascii() and pair.isalpha() for pair in pairs)
