"""The memory of an edit, stage by stage, beside the weights: what stands there at once, at most.

Checked against counted allocations in tests/cost/test_memory.py. Every pass has a budget of tokens, whatever
is computed of the vocabulary one of `hubedit.model.memory.LOGITS` numbers, and the solve takes one site after
another; so only the widths of the model are left, and for the targets the facts that are found together.
"""

from __future__ import annotations

from hubedit.cost.stages import Edited
from hubedit.edit.solve.keys import KEY_TOKENS
from hubedit.edit.statistics.corpus import round_streams, text_length
from hubedit.edit.targets.optimise import chunk_tokens, default_tokens
from hubedit.edit.targets.passes import pass_tokens
from hubedit.model.editable import EditableModel
from hubedit.model.memory import TokenBudget, pass_size, positions
from hubedit.model.sites import Site
from hubedit.presets import METHODS

LIBRARIES = 600_000_000
"""Bytes that Python, torch and transformers take, and on a GPU its own context."""
_SINGLE, _DOUBLE = 4, 8


def stages(edit: Edited, free: int = 0) -> dict[str, int]:
    """Bytes of each stage on the model's device, without weights and libraries; `free`: bytes that the device
    has left (0: those now), by which passes with a gradient are sized."""
    em, sites = edit.em, edit.sites
    method, tokens = METHODS[edit.config.method], TokenBudget(em.device).tokens
    widest = max(em.d_in(site) for site in sites)
    square = _DOUBLE * widest**2
    cpu = em.device.type == "cpu"
    sums = sum(_DOUBLE * em.d_in(site) ** 2 for site in sites)
    # moments wait on the CPU in float32, beside whatever comes after them
    kept = sums // 2 if cpu else 0
    streams, length = round_streams(em, "statistics"), text_length(em)
    logits = _logits(em, tokens)
    found = {
        "reading": max(_generated(em, tokens // 8, tokens), _scored(em, tokens)) + block(em, tokens),
        "text": _generated(em, streams, streams * length) + block(em, streams),
        "statistics": (sums if cpu else square) + _inputs(edit, tokens) + block(em, tokens),
        "check": kept + _scored(em, tokens) + logits + block(em, tokens),
        "keys": kept + block(em, pass_size(em, KEY_TOKENS)) + (_rows(edit, 2) if cpu else 0),
    }
    if method.trained or method.by_token:
        found["fine-tuning"] = kept + _gradient(em, default_tokens(em, free), 0)
    else:
        found["targets"] = kept + _targets(edit, free)
        # the sum and its factor, or the moment beside the products that the report takes
        part = min(len(edit.facts), 4096) if not cpu and not method.published else len(edit.facts)
        found["solve"] = kept + 2 * square + _DOUBLE * widest * (4 * part) + (_rows(edit, 2) if cpu else 0)
    return found


def peak(edit: Edited, weights: int) -> int:
    """Bytes of the largest stage with the weights and libraries."""
    return LIBRARIES + weights + max(stages(edit).values())


def block(em: EditableModel, tokens: int) -> int:
    """Bytes of a pass of so many tokens: what one block holds at once, in its attention or in its MLP."""
    inner, width = em.d_in(Site(0, "mlp")), em.hidden_size
    return tokens * em.dtype.itemsize * max(12 * width, 6 * width + 3 * inner)


def cached(em: EditableModel) -> int:
    """Bytes of a token's keys and values in all blocks."""
    config = em.text_config
    heads = getattr(config, "num_attention_heads", 1)
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or em.hidden_size // heads
    return 2 * groups * width * em.num_layers * em.dtype.itemsize


def _generated(em: EditableModel, rows: int, tokens: int) -> int:
    """Rows that are continued, of so many tokens in all at the end."""
    # keys and values; a block's are copied at each step, and repeated for groups of heads
    return tokens * (cached(em) + 6 * em.hidden_size * em.dtype.itemsize) + _logits(em, rows)


def _scored(em: EditableModel, tokens: int) -> int:
    """Predictions at every position of a pass, of two models."""
    return 4 * tokens * em.hidden_size * em.dtype.itemsize + _logits(em, tokens)


def _logits(em: EditableModel, rows: int) -> int:
    """Predictions of the whole vocabulary at once: in the model's type, and copies in float32."""
    return min(rows, positions(em)) * em.vocabulary * (em.dtype.itemsize + 5 * _SINGLE)


def _inputs(edit: Edited, tokens: int) -> int:
    """The sites' inputs of one pass, with padding and without, and a block of columns of their product."""
    em = edit.em
    # a GPU that is short of memory reads the text once for each site
    inputs = [em.d_in(site) for site in edit.sites]
    read = sum(inputs) if em.device.type == "cpu" else max(inputs)
    widest = max(inputs)
    return (
        tokens * (2 * em.dtype.itemsize * read + _SINGLE * widest) + 2 * _SINGLE * min(4096, widest) * widest
    )


def _targets(edit: Edited, free: int) -> int:
    """What is kept of the facts that are found together, and a pass with its gradient."""
    em = edit.em
    layer = min(edit.layers)
    found, tokens = chunk_tokens(em, layer, free), pass_tokens(em, layer, free)
    # of the prompts: keys and values, and the stream at the tails; of the preserved ones the predictions
    columns = min(em.vocabulary, 64 * tokens // 8)
    if METHODS[edit.config.method].published:
        columns = em.vocabulary
    kept = found * (cached(em) + em.hidden_size * em.dtype.itemsize) + found // 48 * columns * _SINGLE
    return kept + _gradient(em, tokens, columns)


def _gradient(em: EditableModel, tokens: int, columns: int) -> int:
    """A pass forward and backward in all blocks, with predictions at every third token."""
    inner = em.d_in(Site(0, "mlp"))
    each = em.num_layers * (4 * inner + 12 * em.hidden_size) * em.dtype.itemsize
    return tokens * each + max(tokens // 3 * (columns or em.vocabulary) * 4 * _SINGLE, _logits(em, tokens))


def _rows(edit: Edited, times: int) -> int:
    """Keys of a batch, a few rows for each fact, in float64."""
    count = min(len(edit.facts), edit.config.batch_size or len(edit.facts))
    return times * 12 * count * _DOUBLE * max(edit.em.d_in(site) for site in edit.sites)
