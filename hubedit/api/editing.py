"""`hubedit.edit` and `hubedit.evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hubedit.api.inputs import CacheLike, agreeing, cache_of, config_of, facts_of, model_of
from hubedit.api.patches import PatchLike, opened
from hubedit.config import EditConfig
from hubedit.edit.checks import check_facts
from hubedit.errors import FactsError
from hubedit.evaluate.bystanders import candidates
from hubedit.evaluate.judge import as_judge
from hubedit.evaluate.measure import Settings, fitting
from hubedit.evaluate.run import evaluate as measured
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode
from hubedit.patch import Patch
from hubedit.pipeline import edit_facts
from hubedit.progress import Progress


def edit(
    model: EditableModel,
    facts: Fact | Iterable[Fact],
    config: EditConfig | None = None,
    *,
    on: PatchLike | None = None,
    cache: CacheLike | None = None,
    progress: Progress | None = None,
) -> Patch:
    """A patch that edits the facts into the model, which stays as it is.

    `model`: of `hubedit.load`
    `facts`: one or more, made by hand or by `hubedit.load_facts`
    `config`: the default without one; `hubedit.method_defaults("memit")` has that of a published method
    `on`: a patch of the same model, whose facts are kept; the result does both
    `cache`: where what was measured is kept (default: the user's cache folder)
    `progress`: is notified of stages (`hubedit.progress.Progress`)

    Raises FactsError, ConfigError, ModelError and PatchError before the long work, and CollapseError for an
    edit that would damage the model.
    """
    em, wanted, settings = model_of(model), agreeing(facts_of(facts)), config_of(config)
    older = None if on is None else opened(on)
    return edit_facts(em, wanted, settings, on=older, cache=cache_of(cache), progress=progress).patch


def evaluate(
    model: EditableModel,
    facts: Fact | Iterable[Fact],
    *,
    patch: PatchLike | None = None,
    text: str | Sequence[str] = (),
    bystanders: Iterable[Fact] = (),
    settings: Settings | None = None,
    judge: EditableModel | None = None,
    cache: CacheLike | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The content of report.json: what the model answers, and with a patch what it answers then.

    `model`: of `hubedit.load`
    `facts`: whose prompts are answered, with the rephrasings, locality and portability prompts that they have
    `patch`: the edit to measure; without one the model is measured alone
    `text`: unrelated texts, for perplexity and divergence
    `bystanders`: facts that nobody edits; those that the model knows are asked again
    `settings`: what else is measured
    `judge`: a model that says, in its chat template, whether the answers in `settings.forms` mean the targets
    `cache`, `progress`: as for `hubedit.edit`

    A number that was not measured is absent. Raises FactsError, ModelError, PatchError.
    """
    em, wanted = model_of(model), facts_of(facts)
    if not wanted:
        raise FactsError("no facts to evaluate", "give the patch's own: patch.facts")
    check_facts(em, wanted)
    edited = {} if patch is None else {"adapter": em.with_patch(opened(patch))}
    texts = [text] if isinstance(text, str) else text
    return measured(
        em,
        wanted,
        edited=edited,
        rows=[encode(em.tokenizer, each).ids for each in texts],
        bystanders=fitting(em, candidates(facts_of(bystanders), wanted))[0],
        settings=settings or Settings(fluency=0),
        judge=None if judge is None else as_judge(model_of(judge)),
        cache=cache_of(cache),
        progress=progress,
    )
