"""Everything that is measured of a model and its edits, part by part; finished parts come from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache, digest
from hubedit.errors import TokenError
from hubedit.evaluate import bystanders as others
from hubedit.evaluate import harness
from hubedit.evaluate.automatic import read_automatic
from hubedit.evaluate.drift import Drift, drift
from hubedit.evaluate.fluency import fluency, write
from hubedit.evaluate.forced import Forced, Pair
from hubedit.evaluate.harness import Task
from hubedit.evaluate.reading import MOST_ANSWER_TOKENS, Reading, read
from hubedit.facts import Fact, to_record
from hubedit.model.editable import EditableModel
from hubedit.model.forms import chat_key, forms_of, usual, worded
from hubedit.model.tokens import continuation, encode
from hubedit.progress import Progress, Silent

CHUNK = 64
"""Facts in one part: what is lost at most when a run is interrupted."""

_VERSION = 4  # of what the parts hold; a change makes the old ones void


@dataclass(frozen=True)
class Settings:
    """What is measured of a model."""

    fluency: int = 200
    """Facts that texts are written for; 0: none."""
    forms: tuple[str, ...] = ()
    """Of `hubedit.model.forms.FORMS`, in which every prompt is asked, as far as the model has them."""
    automatic: bool = False
    """Probes made from every fact are asked."""
    tasks: tuple[Task, ...] = ()
    """Of the harness."""
    task_path: Path | None = None
    """A folder with tasks of one's own."""
    task_limit: int = 0
    """Questions of each task; 0: all."""
    seed: int = 0
    """Of the bootstrap, the sampled texts and the tasks' examples."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What one model says: `reading` of the facts, `fluency` of each text it wrote, and its `tasks`.

    `context`: of the unedited model, the facts written in front of their prompts. `bystanders`: whether each
    of the facts that are known beforehand still gets its true answer. `drift`: of the model against the
    unedited one (or of that alone) on unrelated text, `real` on real text; None without text. `forms`: the
    facts in other forms; `automatic`: what probes made from the facts are answered with; `context_forms`,
    `context_automatic`: the same in context.
    """

    reading: Reading
    fluency: tuple[float, ...] = ()
    tasks: Mapping[str, Mapping[str, harness.Score]] = field(default_factory=dict)
    drift: Drift | None = None
    context: Reading | None = None
    bystanders: tuple[bool, ...] = ()
    real: Drift | None = None
    forms: Mapping[str, Reading] = field(default_factory=dict)
    automatic: Mapping[str, str] = field(default_factory=dict)
    context_forms: Mapping[str, Reading] = field(default_factory=dict)
    context_automatic: Mapping[str, str] = field(default_factory=dict)


Rows = Sequence[Sequence[int]]
"""Text as tokens."""


def measure(
    em: EditableModel,
    facts: Sequence[Fact],
    *,
    before: EditableModel | None = None,
    rows: Rows = (),
    real: Rows = (),
    bystanders: Sequence[Fact] = (),
    settings: Settings | None = None,
    name: str = "",
    chunk: int = CHUNK,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measures one model. `before`: the unedited model, for the divergence on the token rows `rows` and
    `real`; without it the facts are also asked in context. `bystanders`: of `known`.

    Every part is kept in the cache under all it depends on, so an interrupted run goes on where it was,
    and the unedited model is measured once for all its patches. `name`: for progress messages; `chunk`:
    facts in one part.
    """
    settings = settings or Settings()
    work = _Work(em, cache or Cache(), progress or Silent(), f" ({name})" if name else "", chunk)
    own = work.reading(facts)
    context = work.reading(facts, in_context=True) if before is None and not em.patches else None
    forms = [form for form in forms_of(em) if form in settings.forms]
    return Measured(
        own,
        work.fluency(facts[: settings.fluency], settings.seed),
        {task.name: work.task(task, settings) for task in settings.tasks},
        work.drift(before, rows) if rows else None,
        context,
        work.bystanders(bystanders),
        work.drift(before, real) if real else None,
        work.forms(facts, forms, own),
        work.automatic(facts) if settings.automatic else {},
        work.forms(facts, forms, context, in_context=True) if context is not None else {},
        work.automatic(facts, in_context=True) if settings.automatic and context is not None else {},
    )


def known(
    em: EditableModel, facts: Sequence[Fact], *, cache: Cache | None = None, progress: Progress | None = None
) -> list[Fact]:
    """The bystanders: the first facts that the model answers rightly, at most `bystanders.MOST`."""
    work = _Work(em, cache or Cache(), progress or Silent())
    found: list[Fact] = []
    for at in range(0, len(facts), others.PART):
        part = facts[at : at + others.PART]
        found += [fact for fact, right in zip(part, work.bystanders(part), strict=True) if right]
        if len(found) >= others.MOST:
            break
    return found[: others.MOST]


def fitting(em: EditableModel, facts: Sequence[Fact]) -> tuple[list[Fact], list[str]]:
    """The facts that can be asked of this model, and why the others cannot: a prompt is too long for its
    context, or its tokenizer has nothing for the target."""
    kept, reasons = [], []
    for number, fact in enumerate(facts, 1):
        probes = (*fact.locality, *fact.portability)
        prompts = {fact.prompt, *fact.rephrase, *(p.prompt for p in probes)}
        try:
            target = len(continuation(em.tokenizer, fact.prompt, fact.target, fact.join))
            longest = max(len(encode(em.tokenizer, worded(em, prompt)).ids) for prompt in prompts)
        except TokenError as error:
            reasons.append(f"record {number} is left out: {error.message}")
            continue
        if longest + max(target, MOST_ANSWER_TOKENS) + 4 > em.max_positions:
            reasons.append(f"record {number} is left out: a prompt has {longest} tokens")
            continue
        kept.append(fact)
    return kept, reasons


class _Work:
    """One model's parts, from the cache where they are there."""

    def __init__(
        self, em: EditableModel, cache: Cache, progress: Progress, name: str = "", chunk: int = CHUNK
    ) -> None:
        self._em, self._cache, self._progress, self._name = em, cache, progress, name
        self._chunk = chunk

    def forms(
        self, facts: Sequence[Fact], forms: Sequence[str], own: Reading, *, in_context: bool = False
    ) -> dict[str, Reading]:
        """The facts in each form; `own`: in the usual one, which is not asked again."""
        known = usual(self._em)
        return {
            form: own if form == known else self.reading(facts, in_context=in_context, form=form)
            for form in forms
        }

    def automatic(self, facts: Sequence[Fact], *, in_context: bool = False) -> dict[str, str]:
        texts: dict[str, str] = {}

        def compute(part: Sequence[Fact]) -> dict[str, Any]:
            return {"texts": read_automatic(self._em, part, in_context=in_context)}

        stage = "automatic probes in context" if in_context else "automatic probes"
        for data in self._parts("automatic", stage, facts, compute, in_context=in_context):
            texts |= data["texts"]
        return texts

    def reading(self, facts: Sequence[Fact], *, in_context: bool = False, form: str = "") -> Reading:
        texts: dict[str, str] = {}
        scored: dict[Pair, Forced] = {}

        def compute(part: Sequence[Fact]) -> dict[str, Any]:
            found = read(self._em, part, in_context=in_context, form=form, score=not form)
            pairs = [[*pair, value.to_json()] for pair, value in found.scored.items()]
            return {"texts": found.texts, "scored": pairs}

        stage = f"asking{f', {form}' if form else ''}{' in context' if in_context else ''}"
        more = {"form": form} if form else {}
        for data in self._parts("reading", stage, facts, compute, in_context=in_context, **more):
            texts |= data["texts"]
            scored |= {(prompt, answer): Forced.from_json(v) for prompt, answer, v in data["scored"]}
        return Reading(texts, scored, in_context)

    def bystanders(self, facts: Sequence[Fact]) -> tuple[bool, ...]:
        if not facts:
            return ()
        self._progress.start(f"bystanders{self._name}", len(facts), "facts")

        def compute() -> dict[str, Any]:
            return {"holds": others.holds(self._em, facts)}

        data = self._part("bystanders", {"facts": digest([to_record(fact) for fact in facts])}, compute)
        self._progress.finish(f"{sum(data['holds'])} of {len(facts)}")
        return tuple(data["holds"])

    def fluency(self, facts: Sequence[Fact], seed: int) -> tuple[float, ...]:
        values: list[float] = []

        def compute(part: Sequence[Fact]) -> dict[str, Any]:
            texts = write(self._em, [fact.prompt for fact in part], seed=seed)
            return {"entropy": [fluency(text) for text in texts]}

        for data in self._parts("fluency", "writing", facts, compute, seed=seed):
            values += data["entropy"]
        return tuple(values)

    def task(self, task: Task, settings: Settings) -> dict[str, harness.Score]:
        self._progress.start(f"task {task.name}{self._name}")

        def compute() -> dict[str, Any]:
            place, limit = settings.task_path, settings.task_limit
            found = harness.run_task(self._em, task, folder=place, limit=limit, seed=settings.seed)
            return {"scores": {metric: asdict(score) for metric, score in found.items()}}

        key = harness.task_key(task, settings.task_path, settings.task_limit)
        data = self._part("task", {**key, "seed": settings.seed}, compute)
        scores = {metric: harness.Score(**score) for metric, score in data["scores"].items()}
        self._progress.finish(", ".join(f"{metric} {score.value:.3g}" for metric, score in scores.items()))
        return scores

    def drift(self, before: EditableModel | None, rows: Sequence[Sequence[int]]) -> Drift:
        self._progress.start(f"unrelated text{self._name}")

        def compute() -> dict[str, Any]:
            if before is None:
                return asdict(drift(self._em, None, rows))
            return asdict(drift(before, self._em, rows))

        key = {"text": digest([list(row) for row in rows]), "against": _key(before) if before else None}
        data = self._part("drift", key, compute)
        found = Drift(**{name: tuple(values) for name, values in data.items() if name != "key"})
        self._progress.finish(f"{sum(found.tokens)} tokens")
        return found

    def _parts(
        self,
        kind: str,
        stage: str,
        facts: Sequence[Fact],
        compute: Callable[[Sequence[Fact]], dict[str, Any]],
        **more: Any,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if not facts:
            return found
        self._progress.start(stage + self._name, len(facts), "facts")
        for at in range(0, len(facts), self._chunk):
            part = facts[at : at + self._chunk]
            key = {"facts": digest([to_record(fact) for fact in part]), **more}
            found.append(self._part(kind, key, partial(compute, part)))
            self._progress.advance(len(part))
        self._progress.finish()
        return found

    def _part(
        self, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The result of `compute` as JSON data, computed once for each key."""
        whole = {**_key(self._em), "part": kind, "version": _VERSION, **key}
        entry = self._cache.load("evaluate", whole)
        if entry is not None:
            known: dict[str, Any] = entry.record["data"]
            return known
        data = compute()
        # the format cannot hold a file without any tensor
        self._cache.save("evaluate", whole, {"nothing": torch.zeros(1)}, {"data": data})
        return data


def _key(em: EditableModel) -> dict[str, Any]:
    """What a measurement of the model depends on, apart from what is measured."""
    own = {"model": em.identity, "dtype": str(em.dtype), "device": em.device.type}
    return own | chat_key(em)
