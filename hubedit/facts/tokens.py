"""Facts against one model's tokenizer: can subject and target be placed in its tokens?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar, cast

from hubedit.errors import ModelError, TokenError
from hubedit.facts.types import Fact
from hubedit.remote import told

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")
_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "config.json")


def check_tokens(
    facts: Iterable[Fact], tokenizer: PreTrainedTokenizerFast, source: str = "facts"
) -> list[str]:
    """Problems as `source:line: what; how to mend it`, in the order of the facts; [] when all is well.

    Looked at: the subject's tokens in the prompt, the tokens of the target and of every probe's answers
    after their prompts, unknown tokens, and prompt plus target against the model's longest input.
    """
    problems: list[str] = []
    for number, fact in enumerate(facts, 1):
        where = f"{source}:{fact.line}" if fact.line else f"{source}: fact {number}"
        problems += [f"{where}: {what}" for what in _fact(fact, tokenizer)]
    return problems


def load_tokenizer(ref: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a local folder, `repo` or `repo@revision`, without the model's weights.

    Raises ModelError when there is none or it gives no character offsets.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from transformers import AutoTokenizer

    # facts stand below the model in the order of imports; only this function looks up
    from hubedit.model.fetch import find, is_path

    try:
        if is_path(ref):
            folder = str(find(ref).folder)
        else:
            repo, _, revision = ref.partition("@")
            with told(repo, revision or None, kind=ModelError, doing="download"):
                folder = snapshot_download(repo, revision=revision or None, allow_patterns=list(_FILES))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"no tokenizer for {ref}: {reason}", "give a model folder or owner/name[@revision]"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"the tokenizer of {ref} gives no character offsets", "a tokenizer.json is needed")
    return cast("PreTrainedTokenizerFast", tokenizer)


def _fact(fact: Fact, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    from hubedit.model.tokens import continuation, locate

    problems: list[str] = []
    unknown = tokenizer.unk_token_id

    def answer(prompt: str, text: str, name: str) -> int:
        ids = _tried(lambda: continuation(tokenizer, prompt, text), problems)
        if ids is not None and unknown is not None and unknown in ids:
            problems.append(
                f'{name} "{text}" has characters that the tokenizer does not know; spell it otherwise'
            )
        return len(ids or ())

    prompt = _tried(lambda: locate(tokenizer, fact.prompt, fact.subject), problems)
    if prompt is not None and unknown is not None and unknown in prompt.ids[prompt.first : prompt.last + 1]:
        what = f'subject "{fact.subject}" has characters that the tokenizer does not know'
        problems.append(f"{what}; spell it otherwise")
    size = answer(fact.prompt, fact.target, "target")
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
