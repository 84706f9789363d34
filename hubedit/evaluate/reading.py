"""What a model says to the prompts of facts: generated text, and teacher-forced answers in the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hubedit.evaluate.forced import Forced, Pair, forced
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import mentions, normalise
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, usual, worded
from hubedit.model.join import joined, joins
from hubedit.model.tokens import continuation, token_ids
from hubedit.progress import Progress, Silent

MOST_ANSWER_TOKENS = 44
"""Longer answers of probes than this are not waited for."""


@dataclass(frozen=True)
class Reading:
    """`texts`: what follows each prompt greedily; `scored`: each prompt with an answer, teacher-forced.

    `in_context`: each prompt stood behind its fact written out; so did the keys. The keys are the prompts as
    they are written, whatever form they were put to the model in.
    """

    texts: Mapping[str, str]
    scored: Mapping[Pair, Forced] = field(default_factory=dict)
    in_context: bool = False

    def text(self, fact: Fact, prompt: str) -> str | None:
        """What was generated for a prompt of the fact; None where it was not asked."""
        return self.texts.get(full_prompt(fact, prompt, self.in_context))

    def score(self, fact: Fact, prompt: str, answer: str) -> Forced | None:
        """The answer after a prompt of the fact; None where that was not scored."""
        return self.scored.get((full_prompt(fact, prompt, self.in_context), answer))


def full_prompt(fact: Fact, prompt: str, in_context: bool) -> str:
    """What a prompt of the fact is called in a reading: "{fact's prompt} {target}. {prompt}" in context."""
    return f"{stated(fact)}{prompt}" if in_context else prompt


def stated(fact: Fact) -> str:
    """The fact written out, to stand in front of a prompt."""
    return f"{joined(fact.prompt, fact.target, fact.join)}. "


def read(
    em: EditableModel,
    facts: Sequence[Fact],
    *,
    probes: bool = True,
    in_context: bool = False,
    form: str = "",
    score: bool = True,
    progress: Progress | None = None,
    stage: str = "asking",
) -> Reading:
    """Generates for every prompt of the facts (with `probes`: rephrasings, locality and portability too), in
    one of `hubedit.model.forms.FORMS` ("": the model's usual one), and with `score` scores the answers that
    metrics look at, in the same pass. `progress` is notified of it as a stage of that name.

    Raises TokenError for a target or prompt that does not fit the model; what does not fit in context or in
    another form alone is left out.
    """
    asked = questions(em, facts, probes=probes, in_context=in_context, form=form)
    texts, progress = asked.texts, progress or Silent()
    progress.start(stage, len(texts) + (len(asked.pairs) if score else 0), "answers")
    told = greedy_answers(em, list(texts.values()), asked.new, progress.advance)
    answers = dict(zip(texts, told, strict=True))
    found: dict[Pair, Forced] = {}
    if score:
        scored = [(texts[name][1], answer) for name, answer in asked.pairs]
        found = forced(em, scored, joins=asked.joins, done=progress.advance)
    progress.finish()
    scored_as = {(name, answer): found.get((texts[name][1], answer)) for name, answer in asked.pairs}
    return Reading(answers, {pair: x for pair, x in scored_as.items() if x is not None}, in_context)


@dataclass(frozen=True)
class Questions:
    """What `read` asks. `texts`: each prompt by its name, as it is written and as the model gets it; `new`:
    tokens generated behind each; `pairs`: a name and an answer that is scored; `joins`: by text, what stands
    between it and the answer where the text does not decide it."""

    texts: Mapping[str, tuple[str, str]]
    new: int
    pairs: Sequence[Pair]
    joins: Mapping[str, str]


def questions(
    em: EditableModel, facts: Sequence[Fact], *, probes: bool = True, in_context: bool = False, form: str = ""
) -> Questions:
    """What `read` asks with these options."""
    form = form or usual(em)
    texts = _texts(em, facts, form, probes, in_context)
    pairs: dict[Pair, None] = {}
    given: dict[str, str] = {}
    for fact in facts:
        scored = answers_of(fact) if probes else [(fact.prompt, fact.target)]
        pairs |= dict.fromkeys((full_prompt(fact, prompt, in_context), answer) for prompt, answer in scored)
        if form == "bare":
            named = {full_prompt(fact, prompt, in_context): join for prompt, join in joins([fact]).items()}
            given |= {texts[name][1]: join for name, join in named.items() if name in texts}
    wanted = [pair for pair in pairs if pair[0] in texts]
    return Questions(texts, new_tokens(em, facts, probes=probes), wanted, given)


def read_forms(
    em: EditableModel,
    facts: Sequence[Fact],
    forms: Sequence[str],
    *,
    in_context: bool = False,
    progress: Progress | None = None,
    stage: str = "asking in other forms",
) -> dict[str, Reading]:
    """What the model says to the facts' own prompts in several forms, all generated together: a step of a
    batch costs little more for more rows. What does not fit in a form is left out. `progress`, `stage`: as
    for `read`."""
    texts = {form: _texts(em, facts, form, False, in_context) for form in forms}
    rows = [(form, name) for form, named in texts.items() for name in named]
    asked = [texts[form][name] for form, name in rows]
    found: dict[str, dict[str, str]] = {form: {} for form in forms}
    progress = progress or Silent()
    progress.start(stage, len(asked), "answers")
    answers = greedy_answers(em, asked, new_tokens(em, facts, probes=False), progress.advance)
    progress.finish()
    for (form, name), answer in zip(rows, answers, strict=True):
        found[form][name] = answer
    return {form: Reading(said, {}, in_context) for form, said in found.items()}


def _texts(
    em: EditableModel, facts: Sequence[Fact], form: str, probes: bool, in_context: bool
) -> dict[str, tuple[str, str]]:
    """Each prompt by its name in a reading: as it is written, and as the model gets it."""
    texts: dict[str, tuple[str, str]] = {}
    for fact in facts:
        own = (*fact.rephrase, *(p.prompt for p in (*fact.locality, *fact.portability))) if probes else ()
        before = stated(fact) if in_context else ""
        for prompt in (fact.prompt, *own):
            question = fact.question if prompt == fact.prompt else ""
            text = worded(em, prompt, form, question=question, before=before)
            texts[full_prompt(fact, prompt, in_context)] = prompt, text
    if not in_context and form == usual(em):
        return texts
    # a fact that fits is not given up because this does not
    new = new_tokens(em, facts, probes=probes)
    sizes = map(len, token_ids(em.tokenizer, [text for _, text in texts.values()]))
    return {
        name: texts[name] for name, size in zip(texts, sizes, strict=True) if size + new <= em.max_positions
    }


def answers_of(fact: Fact) -> list[Pair]:
    """Every prompt of the fact with each answer whose probability counts."""
    pairs = [(prompt, fact.target) for prompt in (fact.prompt, *fact.rephrase)]
    if fact.ground_truth:
        pairs += [(prompt, fact.ground_truth[0]) for prompt in (fact.prompt, *fact.rephrase)]
    pairs += [(p.prompt, p.answers[0]) for p in (*fact.locality, *fact.portability) if p.answers]
    return pairs + [(probe.prompt, fact.target) for probe in neighbours(fact)]


def neighbours(fact: Fact) -> list[Probe]:
    """Prompts about other subjects with an answer of their own, which is not the new one."""
    return [
        probe
        for probe in fact.locality
        if probe.answers
        and not mentions(probe.prompt, fact.subject)
        and normalise(probe.answers[0]) != normalise(fact.target)
    ]


def new_tokens(em: EditableModel, facts: Sequence[Fact], *, probes: bool = True) -> int:
    """How many tokens are generated after each prompt: the longest answer and a few more."""
    target = answer = 1

    def length(prompt: str, text: str, join: str | None = None) -> int:
        return len(continuation(em.tokenizer, prompt, text, join)) if text.strip() else 0

    for fact in facts:
        target = max(target, length(fact.prompt, fact.target, fact.join))
        for probe in (*fact.locality, *fact.portability) if probes else ():
            answer = max(answer, *(length(probe.prompt, text) for text in probe.answers), 0)
    # a target must fit whatever its length; one endless alias of a probe must not slow everything down
    return max(target, min(answer, MOST_ANSWER_TOKENS)) + 4
