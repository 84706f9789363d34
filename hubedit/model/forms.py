"""The forms in which a prompt is put to a model: as it is written, as a question, and in its chat template.

A prompt that is a whole input already (`hubedit.model.join.templated`) has no other form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hubedit.facts import Fact
from hubedit.facts.answers import unechoed
from hubedit.model.chat import markers
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.join import templated, unspaced
from hubedit.model.tokens import preceded, token_ids

FORMS = ("bare", "question", "instruction", "chat")

QUESTION = "Question: {}\nAnswer:"
INSTRUCTION = "Answer the question in a few words.\n\nQuestion: {}\nAnswer:"
COMPLETION = "Complete the sentence with a few words: {}"
"""How a user asks for the rest of a sentence. SmolLM2-135M-Instruct answers twice to four times as many of
CounterFact's prompts rightly so as it does with "Complete: {}", "{} what?" or the prompt alone."""


def as_question(prompt: str) -> str:
    """The prompt itself where it is a question, else "The capital of Japan is what?"."""
    text = prompt.rstrip()
    if is_question(text):
        return text
    return f"{text}\uff1f" if text and unspaced(text[-1]) else f"{text} what?"


def is_question(prompt: str) -> bool:
    """Whether the prompt is asked as it stands."""
    return prompt.rstrip().endswith(("?", "\uff1f"))


def as_request(prompt: str) -> str:
    """What a user writes to a chat model: the prompt itself where it is a question, else `COMPLETION`."""
    return prompt if is_question(prompt) else COMPLETION.format(prompt)


def usual(em: EditableModel) -> str:
    """The form in which everything is asked that does not say otherwise."""
    return "bare" if em.chat is None else "chat"


def forms_of(em: EditableModel) -> tuple[str, ...]:
    """The forms that this model has: "chat" only where its template is used."""
    return tuple(form for form in FORMS if form != "chat" or em.chat is not None)


def worded(em: EditableModel, prompt: str, form: str = "", *, question: str = "", before: str = "") -> str:
    """The prompt in a form ("": the model's usual one), as text that the model gets. `question`: what is
    asked in its stead where the form is a question; `before`: text in front, inside the form."""
    form = form or usual(em)
    if form == "bare" or templated(em.tokenizer, prompt):
        return preceded(em.tokenizer, before, prompt) if before else prompt
    if form == "chat":
        assert em.chat is not None
        return em.chat.message(before + (question or as_request(prompt)))
    asked = before + (question or as_question(prompt))
    return (QUESTION if form == "question" else INSTRUCTION).format(asked)


def put(em: EditableModel, fact: Fact, form: str = "", *, before: str = "") -> tuple[str, str | None]:
    """A fact's own prompt in a form, and what stands between it and the answer (None: what the text asks
    for): what the fact says of its own prompt holds for that prompt alone."""
    text = worded(em, fact.prompt, form, question=fact.question, before=before)
    return text, fact.join if text.endswith(fact.prompt) else None


def answer_end(em: EditableModel, text: str) -> tuple[int, ...]:
    """What stands behind an answer to the text, in tokens: the end of the turn where the text is a message in
    the chat template, nothing elsewhere."""
    chat = em.chat or markers(em.tokenizer).chat
    return () if chat is None or chat.end is None or not text.endswith(chat.turn) else (chat.end,)


def as_message(em: EditableModel, text: str) -> str:
    """What a person wrote, word for word, as the model gets it: the user's message where the chat template is
    used."""
    return text if em.chat is None or templated(em.tokenizer, text) else em.chat.message(text)


def greedy_answers(
    em: EditableModel,
    asked: Sequence[tuple[str, str]],
    new: int,
    done: Callable[[int], object] | None = None,
) -> list[str]:
    """What the model says in at most `new` tokens to prompts, each as it is written and as the model gets it;
    `done`: as for `hubedit.model.generate.greedy`.

    An answer that begins with the prompt's own words, as those of chat models do, is what follows them;
    for them there are more tokens.
    """
    continued = [text.endswith(prompt) for prompt, text in asked]
    texts = greedy(em, [text for _, text in asked], answer_tokens(em, asked, new), done=done)
    return [
        text if own else unechoed(text, prompt)
        for (prompt, _), own, text in zip(asked, continued, texts, strict=True)
    ]


def answer_tokens(em: EditableModel, asked: Sequence[tuple[str, str]], new: int) -> int:
    """Tokens that `greedy_answers` generates for answers of `new` tokens."""
    others = [prompt for prompt, text in asked if not text.endswith(prompt)]
    if not others:
        return new
    longest = max(map(len, token_ids(em.tokenizer, [text for _, text in asked])))
    more = max(map(len, token_ids(em.tokenizer, others)))
    return max(new, min(new + more, em.max_positions - longest))


def chat_key(em: EditableModel) -> dict[str, Any]:
    """What keys of caches hold of the chat template; nothing where none is used."""
    return {} if em.chat is None else {"chat": em.chat.to_json()}
