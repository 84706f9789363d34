"""`hubedit.edit` and `hubedit.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubedit.api.patches import PatchLike, opened
from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.evaluate.bystanders import candidates
from hubedit.evaluate.judge import as_judge
from hubedit.evaluate.measure import Settings, fitting
from hubedit.evaluate.run import evaluate as measured
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.patch import Patch
from hubedit.pipeline import edit_facts
from hubedit.progress import Progress


def edit(
    model: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig | None = None,
    *,
    on: PatchLike | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Patch:
    """A patch that edits the facts into the model, which stays as it is.

    `config`: the default method's without one (`hubedit.method_defaults("memit")` has that of a published
    one); `on`: a patch of the same model whose facts stay; the result does both.
    Raises FactsError and ConfigError before the long work, CollapseError for an edit that would damage the
    model.
    """
    older = None if on is None else opened(on)
    return edit_facts(model, facts, config or EditConfig(), on=older, cache=cache, progress=progress).patch


def evaluate(
    model: EditableModel,
    facts: Sequence[Fact],
    *,
    patch: PatchLike | None = None,
    text: Sequence[Sequence[int]] = (),
    bystanders: Sequence[Fact] = (),
    settings: Settings | None = None,
    judge: EditableModel | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The content of report.json: what the model answers, and with a patch what it answers then.

    `text`: rows of tokens of unrelated text, for perplexity and divergence; `bystanders`: facts that nobody
    edits; those that the model knows are asked again; `judge`: a model that says whether the answers in
    `settings.forms` mean the targets, in its own chat template. A number that was not measured is absent.
    """
    edited = {} if patch is None else {"adapter": model.with_patch(opened(patch))}
    return measured(
        model,
        facts,
        edited=edited,
        rows=text,
        bystanders=fitting(model, candidates(bystanders, facts))[0],
        settings=settings or Settings(fluency=0),
        judge=None if judge is None else as_judge(judge),
        cache=cache,
        progress=progress,
    )
