"""Facts against one model's tokenizer: can subject and target be placed in its tokens?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from hubedit.errors import ModelError, TokenError
from hubedit.facts.types import Fact
from hubedit.remote import translated_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")
LONG_TARGET = 10
"""Tokens from which on a target gets a notice: an edit finds one change at the subject's last token, and
the further an answer goes on, the less of it that change decides (docs/facts.md)."""
_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "config.json")


def check_tokens(
    facts: Iterable[Fact], tokenizer: PreTrainedTokenizerFast, source: str = "facts"
) -> list[str]:
    """Problems as `source:line: what; how to mend it`, in the order of the facts; [] when all is well.

    Looked at: the subject's tokens in the prompt, the tokens of the target and of every probe's answers
    after their prompts, unknown and special tokens, and prompt plus target against the model's longest
    input.
    """
    return [f"{at}: {what}" for at, fact in _placed(facts, source) for what in _fact(fact, tokenizer)]


def joints(facts: Iterable[Fact], tokenizer: PreTrainedTokenizerFast, source: str = "facts") -> list[str]:
    """The tokens where prompt and target meet, as `source:line: what`, of facts that are joined by anything
    but one space, and of those whose joined text has other tokens there than prompt and target alone.

    The facts have passed `check_tokens`.
    """
    return [f"{at}: {what}" for at, fact in _placed(facts, source) if (what := _joint(fact, tokenizer))]


def long_targets(
    facts: Iterable[Fact], tokenizer: PreTrainedTokenizerFast, source: str = "facts"
) -> list[str]:
    """Targets of `LONG_TARGET` tokens and more, as `source:line: what`. The facts have passed
    `check_tokens`."""
    from hubedit.model.tokens import continuation

    sizes = (
        (at, len(continuation(tokenizer, fact.prompt, fact.target, fact.join)))
        for at, fact in _placed(facts, source)
    )
    return [
        f"{at}: the target has {size} tokens; a shorter one is likelier to come out whole"
        for at, size in sizes
        if size >= LONG_TARGET
    ]


def _placed(facts: Iterable[Fact], source: str) -> Iterator[tuple[str, Fact]]:
    for number, fact in enumerate(facts, 1):
        yield f"{source}:{fact.line}" if fact.line else f"{source}: fact {number}", fact


def _joint(fact: Fact, tokenizer: PreTrainedTokenizerFast) -> str:
    from hubedit.model.join import joined, unspaced
    from hubedit.model.tokens import continuation, encode

    whole = joined(fact.prompt, fact.target, fact.join, tokenizer)
    prompt = encode(tokenizer, fact.prompt).ids
    answer = continuation(tokenizer, fact.prompt, fact.target, fact.join)
    read, usual = encode(tokenizer, whole).ids, whole == f"{fact.prompt} {fact.target}"
    closed = whole == fact.prompt + fact.target and (unspaced(fact.prompt[-1]) or unspaced(fact.target[0]))
    merged = read != (*prompt, *answer)
    if fact.join is None and (usual or closed) and not merged:
        return ""
    left = _pieces(tokenizer, prompt, max(0, len(prompt) - 2), len(prompt))
    right = _pieces(tokenizer, (*prompt, *answer), len(prompt), len(prompt) + 2)
    what = f"prompt and target meet as {left} + {right}"
    if merged:
        first = next((n for n, (a, b) in enumerate(zip(prompt, read, strict=False)) if a != b), len(prompt))
        part = _pieces(tokenizer, read, first, first + 3)
        what += f", where the text as a whole has {part}"
    return what


def _pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], start: int, end: int) -> str:
    """The text of ids[start:end] as it follows those before: alone, some lose their leading space. Tokens
    that hold parts of one character stand together."""
    near = range(max(0, start - 3), min(len(ids), end + 3) + 1)
    texts = {n: str(tokenizer.decode(list(ids[:n]), clean_up_tokenization_spaces=False)) for n in near}
    whole = [n for n in near if not texts[n].endswith("\ufffd")]
    first = max((n for n in whole if n <= start), default=start)
    last = min((n for n in whole if n >= end), default=near[-1])
    cuts = (first, *(n for n in whole if first < n < last), last)
    return " ".join(f'"{texts[b].removeprefix(texts[a])}"' for a, b in pairwise(cuts))


def load_tokenizer(ref: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a local folder, `repo` or `repo@revision`, without the model's weights.

    Raises ModelError when there is none or it gives no character offsets.
    """
    from huggingface_hub import snapshot_download
    from transformers import AutoTokenizer

    # facts stand below the model in the order of imports; only this function looks up
    from hubedit.model.fetch import check_tokenizer, find, is_path
    from hubedit.model.reading import reading

    with reading(f"no tokenizer for {ref}", "give a model folder or owner/name[@revision]"):
        if is_path(ref):
            folder = str(find(ref).folder)
        else:
            repo, _, revision = ref.partition("@")
            with translated_errors(repo, revision or None, kind=ModelError, doing="download"):
                folder = snapshot_download(repo, revision=revision or None, allow_patterns=list(_FILES))
        check_tokenizer(
            Path(folder), ref
        )  # of an empty folder, transformers 5.0 makes a tokenizer without words
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer("a")  # some settings are only read with the first text
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"the tokenizer of {ref} gives no character offsets", "a tokenizer.json is needed")
    return cast("PreTrainedTokenizerFast", tokenizer)


def _fact(fact: Fact, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    from hubedit.model.tokens import continuation, locate

    problems: list[str] = []
    unknown = tokenizer.unk_token_id
    special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special and i != unknown}

    def answer(prompt: str, text: str, name: str, join: str | None = None) -> int:
        ids = _tried(lambda: continuation(tokenizer, prompt, text, join), problems)
        if ids is not None and unknown is not None and unknown in ids:
            problems.append(
                f'{name} "{text}" has characters that the tokenizer does not know; spell it otherwise'
            )
        if held := [special[i] for i in ids or () if i in special]:
            what = f'{name} "{text}" holds the special token {held[0]}, which no generated text shows'
            problems.append(f"{what}; leave it out")
        return len(ids or ())

    prompt = _tried(lambda: locate(tokenizer, fact.prompt, fact.subject), problems)
    if prompt is not None and unknown is not None and unknown in prompt.ids[prompt.first : prompt.last + 1]:
        what = f'subject "{fact.subject}" has characters that the tokenizer does not know'
        problems.append(f"{what}; spell it otherwise")
    size = answer(fact.prompt, fact.target, "target", fact.join)
    longest = tokenizer.model_max_length
    if prompt is not None and len(prompt.ids) + size > longest:
        what = f"prompt and target have {len(prompt.ids) + size} tokens, the model takes {longest}"
        problems.append(f"{what}; shorten the prompt")
    for name, probes in (("locality", fact.locality), ("portability", fact.portability)):
        for probe in probes:
            for text in probe.answers:
                answer(probe.prompt, text, f"{name} answer")
    return problems


def _tried(call: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return call()
    except TokenError as error:
        problems.append(f"{error.message}; {error.hint}" if error.hint else error.message)
        return None
