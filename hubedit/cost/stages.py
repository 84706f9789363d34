"""The work of an edit, stage by stage, before it is done: tokens that go through blocks, and products.

The formulas are those of docs/performance.md. What is asked and edited is counted on some of the facts, with
the rows and batches that the stages themselves make of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.cost.work import Work
from hubedit.edit.locate.layers import untraced_layers
from hubedit.edit.locate.trace import trace_key
from hubedit.edit.methods.context_templates import published_rows
from hubedit.edit.methods.joint import rounds_by_subject
from hubedit.edit.prompts.contexts import key_rows, preserved_rows, target_rows
from hubedit.edit.rows import Row, edit_rows
from hubedit.edit.solve.chat_template import messages
from hubedit.edit.statistics.corpus import (
    CHECK_TOKENS,
    SELF,
    TEXT_ROWS,
    round_key,
    round_streams,
    text_length,
)
from hubedit.edit.statistics.second_moments import source_key, stats_key
from hubedit.edit.statistics.size import corpus_tokens, needed_tokens
from hubedit.edit.targets.passes import groups, most_padding, pass_tokens
from hubedit.evaluate.reading import questions
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import answer_tokens, forms_of, usual
from hubedit.model.generate import batches
from hubedit.model.memory import positions
from hubedit.model.sites import Site
from hubedit.model.tail import shared_opening
from hubedit.model.tokens import continuation, token_ids
from hubedit.presets import METHODS

_SOME = 48  # facts that are counted; the others are taken to be like them
_CONTEXT = "It was the best of all the years that anybody knew. "  # stands for a generated one
_GENERATED = 8192  # as `hubedit.model.generate.greedy` batches
_MISSING = (1.0, 0.75, 0.5, 0.45)
"""Share of the facts that the joint edit's rounds still work on: between what Gemma-3-270M and
SmolLM2-135M-Instruct needed, and a guess for other models; later rounds are like the last."""
_WRITING = 4.0  # seconds of figures, card and page
_FACT = 0.04  # seconds that a fact takes beside the model: its rows and prompts as tokens, its records


@dataclass(frozen=True)
class Edited:
    """What is edited: the sites by layer, the facts in all and some of them, and how many batches there
    are."""

    em: EditableModel
    config: EditConfig
    facts: Sequence[Fact]
    some: Sequence[Fact]
    layers: tuple[int, ...]
    sites: tuple[Site, ...]

    @property
    def scale(self) -> float:
        """Facts for each one of `some`."""
        return len(self.facts) / len(self.some)

    @property
    def batches(self) -> int:
        return -(-len(self.facts) // (self.config.batch_size or len(self.facts)))


def edited(em: EditableModel, facts: Sequence[Fact], config: EditConfig) -> Edited:
    """Which sites an edit has: where a trace decides, the middle layer and both kinds stand for them."""
    method = METHODS[config.method]
    layers = untraced_layers(config, em.num_layers) or (em.num_layers // 2,)
    traced = method.balanced and config.alpha in ("auto", "per-layer")
    share = 0.5 if traced or not method.balanced else float(config.alpha)
    sites = [Site(n, "attention") for n in layers if method.attention and share > 0]
    sites += [Site(n, "mlp") for n in layers if share < 1]
    some = facts[:: -(-len(facts) // _SOME)]
    return Edited(em, config, facts, some, layers, tuple(sorted(sites)))


def stages(edit: Edited, cache: Cache, *, brief: bool = False) -> dict[str, Work]:
    """The work of each stage of `apply`, in order. What the cache has costs nothing; a stage that some of the
    facts may not need counts as if most did. `brief`: as for `hubedit.pipeline.apply_facts`."""
    em, config = edit.em, edit.config
    method = METHODS[config.method]
    asking = _asked(edit, in_context=False, brief=brief)
    found = {"reading before": asking if brief else asking + _asked(edit, in_context=True)}
    found["trace"] = _trace(edit, cache)
    found |= _statistics(edit, cache)
    if method.trained or method.by_token:
        found["fine-tuning"] = _trained(edit)
    else:
        rounds = _rounds(edit)
        found["targets"] = _targets(edit, rounds)
        found["solve"] = _solve(edit, max(rounds))
    found["check"] = _text(em, CHECK_TOKENS)
    # both models on other text, and every parameter's bits before and after
    found["reading after"] = asking + 2 * _text(em, TEXT_ROWS * text_length(em))
    found["writing"] = Work(seconds=_WRITING + _FACT * len(edit.facts) + weights_size(em) / 2e9)
    return found


def weights_size(em: EditableModel) -> int:
    """Bytes of all weights in the model's type, tied ones once."""
    return sum(p.numel() for p in em.model.parameters()) * em.dtype.itemsize


def _asked(edit: Edited, *, in_context: bool, brief: bool = False) -> Work:
    """Every prompt in the usual form, and unless it is brief the facts' own in the others, which are
    generated together."""
    em = edit.em
    asked = questions(em, edit.some, in_context=in_context)
    total = _generated(em, list(asked.texts.values()), asked.new)
    pairs = [(asked.texts[name][1], answer) for name, answer in asked.pairs if answer.strip()]
    prompts = sum(map(len, token_ids(em.tokenizer, [prompt for prompt, _ in pairs])))
    answers = sum(len(continuation(em.tokenizer, *pair)) for pair in pairs)
    total += Work(tokens=(prompts + answers) * em.num_layers, calls=1) + _heads(em, answers)
    if brief:
        return edit.scale * total
    others = [
        questions(em, edit.some, probes=False, in_context=in_context, form=form)
        for form in forms_of(em)
        if form != usual(em)
    ]
    texts = [text for one in others for text in one.texts.values()]
    return edit.scale * (total + _generated(em, texts, others[0].new))


def _generated(em: EditableModel, texts: Sequence[tuple[str, str]], new: int) -> Work:
    """Prompts, each as it is written and as the model gets it, with `new` tokens behind each."""
    total, new = Work(), answer_tokens(em, texts, new) if texts else new
    ids = token_ids(em.tokenizer, [text for _, text in texts])
    for group in batches(ids, new, _GENERATED, positions(em)):
        total += Work(tokens=len(group) * max(len(ids[n]) for n in group) * em.num_layers, calls=1)
        total += _steps(em, len(group), new - 1)
    return total


def _steps(em: EditableModel, rows: int, steps: int) -> Work:
    n = em.num_layers
    made = Work(steps=steps * n, rows=rows * steps * n, calls=steps)
    return made + Work(heads=steps + 1, entries=rows * (steps + 1) * em.vocabulary)


def _heads(em: EditableModel, count: float) -> Work:
    """Predictions at so many positions."""
    return Work(heads=max(1.0, count / positions(em)), entries=count * em.vocabulary)


def _trace(edit: Edited, cache: Cache) -> Work:
    em, config = edit.em, edit.config
    method = METHODS[config.method]
    by_trace = config.layers == "auto" and method.one_layer and not method.depth
    if not by_trace and not (method.balanced and config.alpha in ("auto", "per-layer")):
        return Work()
    if cache.path("trace", trace_key(em, edit.facts, replace(config.trace, tokens="subject_last"))).exists():
        return Work()
    n, traced = em.num_layers, min(config.trace.max_facts, len(edit.facts))
    length = sum(len(r.ids) for r in edit_rows(em, edit.some, ())) / len(edit.some)
    # clean and corrupted once, and a restored run for each kind of site and layer: half of the blocks each
    runs = traced * config.trace.samples
    passes = Work(tokens=runs * length * (2 * n + n * n), calls=2 * n * max(1.0, runs * length / 4096))
    return passes + _heads(em, runs * (2 + 2 * n))


def _statistics(edit: Edited, cache: Cache) -> dict[str, Work]:
    """Text that is not in the cache, and its second moments."""
    em, config = edit.em, edit.config.stats
    tokens, key = needed_tokens(em, config), source_key(config, em)
    written = corpus_tokens(em, config)
    missing = [s for s in edit.sites if not cache.path("stats", stats_key(em, s, key, tokens)).exists()]
    text, sums = Work(), Work()
    if config.corpus == SELF:
        for part in ("statistics", "holdout") if missing else ("holdout",):
            size = round_streams(em, part) * text_length(em)
            for number in range(-(-written // size) if part == "statistics" else 1):
                if not cache.path("corpus", round_key(em, config, part, number)).exists():
                    text += _steps(em, round_streams(em, part), text_length(em) - 1)
    if missing:
        deepest = 1 + max(site.layer for site in missing)
        sums = Work(
            tokens=tokens * deepest,
            single=sum(2 * tokens * em.d_in(site) ** 2 for site in missing),
            calls=tokens / 4096,
        )
    return {"text": text, "statistics": sums + _text(em, CHECK_TOKENS)}


def _text(em: EditableModel, tokens: int) -> Work:
    """Text through one model."""
    return Work(tokens=tokens * em.num_layers, calls=1) + _heads(em, tokens)


def _rounds(edit: Edited) -> list[int]:
    """How often each of the counted facts goes through the sites at most."""
    em, config, some = edit.em, edit.config, edit.some
    if METHODS[config.method].published:
        return [1] * len(some)
    return rounds_by_subject(em, some, range(len(some)), config.targets)


def _targets(edit: Edited, rounds: Sequence[int]) -> Work:
    """The descent; the joint edit's of every site, round by round, with the keys of every fact."""
    em, config, some = edit.em, edit.config, edit.some
    moves, total = config.targets.steps, Work()
    if METHODS[config.method].published:
        contexts = [_CONTEXT] * config.targets.contexts
        first, essence = published_rows(em, some, contexts)
        rows = [*first, *essence]
        last = edit.layers[-1]
        # ROME's family looks at the MLP's output, the others at the stream after the layer
        start = last - 1 if METHODS[config.method].one_layer else last
        total = _descent(em, rows, start, last, moves - 1, 0) + _keys(em, rows, last, len(edit.sites))
        return edit.scale * total
    rows = [*target_rows(em, some, config.prompts, config.targets.contexts), *preserved_rows(em, some)]
    told = [Row(0, ids, len(ids) - 1, ()) for ids in messages(em)]
    keys = [*key_rows(em, some, config.prompts), *told]
    for number, share in enumerate(shares(max(rounds)), 1):
        still = [r for r in rows if number <= rounds[r.fact]]
        for site in edit.sites:
            own = _descent(em, still, site.layer - 1, site.layer, moves, config.targets.entries)
            total += share * own + _keys(em, keys, site.layer, 1)
    return edit.scale * total


def shares(rounds: int) -> list[float]:
    """Of the facts that each round still works on."""
    return [_MISSING[min(number, len(_MISSING) - 1)] for number in range(rounds)]


def _descent(
    em: EditableModel, rows: Sequence[Row], start: int, layer: int, moves: int, entries: int
) -> Work:
    """What does not change is computed once, in all blocks; the rest runs above `start`, at the tails. The
    head sees the likeliest `entries` of each position, or for 0 the whole vocabulary."""
    n, upper, total = em.num_layers, em.num_layers - 1 - start, Work()
    for group in groups(rows, pass_tokens(em, layer), most_padding(em)):
        own = [rows[number] for number in group]
        for part in (own, [r for r in own if r.preserve]):
            if part:
                total += Work(tokens=_padded(em, part)[0] * n, calls=2)
        tail, kept = _padded(em, own)[1], [r for r in own if r.preserve]
        scored = sum(len(r.labels) for r in own)
        columns = min(em.vocabulary, entries * scored) if entries else em.vocabulary
        total += Work(
            tokens=(tail + (_padded(em, kept)[1] if kept else 0)) * upper,
            gradients=moves * tail * upper,
            entries=(moves + 1) * scored * columns,
            calls=2 * moves + 1,
        )
        total += _heads(em, 3 * scored)
    return total


def _padded(em: EditableModel, rows: Sequence[Row]) -> tuple[int, int]:
    """Tokens of a pass, of which what all rows begin with is read once, and of its tails, with padding."""
    ids, cuts = [r.ids for r in rows], [r.last for r in rows]
    shared = shared_opening(em, ids, cuts)
    tail = max(len(r.ids) - r.last for r in rows)
    return shared + len(rows) * (max(cuts) - shared + tail), len(rows) * tail


def _keys(em: EditableModel, rows: Iterable[Row], layer: int, times: int) -> Work:
    """What stands up to the subjects, through the layers up to one."""
    length = sum(r.last + 1 for r in rows)
    return Work(tokens=times * length * (layer + 1), calls=times * max(1.0, length / 2048))


def _solve(edit: Edited, rounds: int) -> Work:
    """A factor of the moment, the keys' own moment, and what the report says of the update."""
    em, count = edit.em, len(edit.facts) / edit.batches
    published = METHODS[edit.config.method].published
    each = 6 if not published else 1
    total = 0.0
    for site in edit.sites:
        out, width = em.weight(site).shape
        # a Cholesky factor runs at about half the speed of a product
        total += 2 * width**3 / 3 + (2 * each + 2 + 2) * count * width**2
        total += min(count, out) * 4 * width * out
    once = sum(2 * em.weight(s).shape[0] * em.d_in(s) ** 2 for s in edit.sites)
    return Work(double=edit.batches * rounds * total + once)


def _trained(edit: Edited) -> Work:
    """Weights are trained: every row through all blocks, forward and backward, in every epoch."""
    em, steps = edit.em, edit.config.targets.steps
    rows = edit_rows(em, edit.some, ())
    tokens = sum(len(r.ids) for r in rows)
    scored = sum(len(r.labels) for r in rows)
    return edit.scale * Work(
        gradients=steps * tokens * em.num_layers,
        calls=steps * max(1.0, tokens / 4096),
    ) + edit.scale * steps * _heads(em, 3 * scored)
