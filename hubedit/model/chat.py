"""A tokenizer's chat template: rendered once, then texts are put into it by joining strings.

An answer is due behind the generation prompt. Where a template offers a thinking phase, that is left out
(`enable_thinking=False`): an edit is of what is answered at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


RECORD = "chat"
"""The key of hubedit.json that says how a patch's facts were put to the model."""


@dataclass(frozen=True)
class Chat:
    """A conversation of one message. `head`: what stands before the user's words; `turn`: behind them, up to
    where the answer is due; `between`: what stands between that and the answer (None: the template takes the
    generation prompt back, or writes more than white space there); `system`: the system prompt ("": the
    template's own, if it has one); `end`: the special token behind an answer (None: the template writes
    none)."""

    head: str
    turn: str
    between: str | None
    system: str = ""
    end: int | None = None

    def message(self, text: str) -> str:
        """The text as the user's message, up to where the answer is due."""
        return f"{self.head}{text.strip()}{self.turn}"

    def to_json(self) -> dict[str, Any]:
        """As stored in hubedit.json, and in keys of caches."""
        return {"head": self.head, "turn": self.turn, "system": self.system}


@dataclass(frozen=True)
class Markers:
    """What shows that a text is a whole input: the texts of `special` and of all `added` tokens, the
    template's turns (None without a template), and the `heads` that conversations begin with, without and
    with a system prompt."""

    special: tuple[str, ...]
    added: tuple[str, ...]
    chat: Chat | None
    heads: tuple[str, ...] = ()


def chat_of(tokenizer: PreTrainedTokenizerFast, system: str = "") -> Chat:
    """The template's turns. Raises ConfigError without a template, or where it takes no system prompt."""
    if not tokenizer.chat_template:
        raise ConfigError("the tokenizer has no chat template", "leave out --chat and --system")
    chat = _rendered(tokenizer, system, thinking=False)
    if chat is None and system:
        raise ConfigError("the chat template takes no system prompt", "leave out --system")
    if chat is None:
        raise ConfigError("the chat template cannot be rendered with one user message", "leave out --chat")
    if system and system.strip() not in chat.head:
        raise ConfigError("the chat template leaves the system prompt out", "leave out --system")
    return chat


def markers(tokenizer: PreTrainedTokenizerFast) -> Markers:
    """The markers of a tokenizer, found once and kept with it: a table of 6,000 added tokens takes longer to
    read than a prompt to tokenise."""
    key = (tokenizer.chat_template, len(tokenizer), tokenizer.bos_token)
    kept = vars(tokenizer).get(_KEPT)
    if kept is None or kept[0] != key:
        tokens = tokenizer.added_tokens_decoder.values()
        special = tuple(str(token) for token in tokens if token.special)
        chat = with_system = None
        if tokenizer.chat_template:
            chat, with_system = _rendered(tokenizer), _rendered(tokenizer, _SYSTEM)
        starts = [chat.head] if chat is not None else []
        if with_system is not None and _SYSTEM in with_system.head:
            starts.append(with_system.head.partition(_SYSTEM)[0])
        bos = str(tokenizer.bos_token or "")
        heads = tuple(head for head in starts if head.removeprefix(bos).strip())
        kept = (key, Markers(special, tuple(map(str, tokens)), chat, heads))
        vars(tokenizer)[_KEPT] = kept
    found: Markers = kept[1]
    return found


def _rendered(tokenizer: PreTrainedTokenizerFast, system: str = "", thinking: bool = True) -> Chat | None:
    """None for a template that wants other messages."""
    from jinja2 import TemplateError

    render: Any = tokenizer.apply_chat_template
    with_system = [{"role": "system", "content": system}] if system else []
    user = {"role": "user", "content": _USER}
    more: dict[str, Any] = {} if thinking else {"enable_thinking": False}
    try:
        asked = render([*with_system, user], tokenize=False, add_generation_prompt=True, **more)
        answer = {"role": "assistant", "content": _ANSWER}
        whole = render([*with_system, user, answer], tokenize=False, **more)
    except (TemplateError, TypeError, ValueError, KeyError):
        return None
    head, found, turn = asked.rpartition(_USER)
    if not found:
        return None
    before, found, behind = whole.partition(_ANSWER)
    between = before[len(asked) :] if found and before.startswith(asked) else "?"
    return Chat(head, turn, None if between.strip() else between, system, _first_special(tokenizer, behind))


def _first_special(tokenizer: PreTrainedTokenizerFast, text: str) -> int | None:
    """The special token that the text begins with, white space aside; None where it begins otherwise."""
    tokens = tokenizer.added_tokens_decoder.items()
    fitting = [(len(str(t)), id) for id, t in tokens if t.special and text.lstrip().startswith(str(t))]
    return max(fitting)[1] if fitting else None


_SYSTEM, _USER, _ANSWER = "SYSTEMTEXT", "USERTEXT", "ANSWERTEXT"
_KEPT = "_hubedit_markers"
