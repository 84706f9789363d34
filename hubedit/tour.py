"""What `hubedit demo` shows on a model: facts that it believes, asked bare and in chat, and the whole circle
of a patch: loaded by PEFT, merged, taken out again."""

from __future__ import annotations

import filecmp
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.revert import revert
from hubedit.demo import everyday_path, facts_path
from hubedit.errors import HubEditError
from hubedit.facts import Fact, Probe, load_facts
from hubedit.facts.answers import clip, gives, mentions
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import Source
from hubedit.model.forms import greedy_answers as answers_to
from hubedit.model.forms import worded
from hubedit.model.generate import greedy
from hubedit.patch import Patch

_BARE_TOKENS, _CHAT_TOKENS = 10, 32


@dataclass(frozen=True)
class Bank:
    """`neighbours`: prompts that must keep their answers."""

    facts: tuple[Fact, ...]
    neighbours: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Said:
    """By prompt, what the model says to it bare, and as a user asks it in the chat template (empty where that
    is not used)."""

    bare: Mapping[str, str]
    chat: Mapping[str, str]


@dataclass(frozen=True)
class Circle:
    """`peft`, `merged`: what base and adapter, and the merged model, say to a prompt; `same`: whether every
    file of the base is there again after the revert, byte for byte; `weights`: tensors that were changed."""

    peft: str
    merged: str
    weights: int
    same: bool


def bundled() -> Bank:
    """The facts of the bundled model."""
    return Bank(load_facts(facts_path()).facts)


def everyday() -> Bank:
    """Facts that everybody knows, with neighbours."""
    facts = load_facts(everyday_path()).facts
    return Bank(facts, tuple(dict.fromkeys(p for f in facts for p in f.locality)))


def ask(em: EditableModel, bank: Bank) -> Said:
    """The model's greedy answers."""
    prompts = [*(f.prompt for f in bank.facts), *(p.prompt for p in bank.neighbours)]
    bare = dict(zip(prompts, greedy(em, prompts, _BARE_TOKENS), strict=True))
    if em.chat is None:
        return Said(bare, {})
    questions = {f.prompt: f.question for f in bank.facts}
    texts = [(p, worded(em, p, "chat", question=questions.get(p, ""))) for p in prompts]
    return Said(bare, dict(zip(prompts, answers_to(em, texts, _CHAT_TOKENS), strict=True)))


def believed(bank: Bank, said: Said, most: int, model: str) -> Bank:
    """At most `most` facts whose old answer the model gives to the bare prompt, those first that it gives in
    chat too; and the neighbours that it knows. Raises HubEditError where it believes none."""
    facts = [f for f in bank.facts if gives(said.bare[f.prompt], f.ground_truth)]
    facts.sort(key=lambda f: not names(said.chat.get(f.prompt, ""), f.ground_truth))
    if not facts:
        raise HubEditError(
            f"{model} completes none of {len(bank.facts)} well-known facts",
            f'edit one of your own: hubedit apply --model {model} --fact "PROMPT -> TARGET"',
        )
    chosen = tuple(facts[:most])
    new = {answer for f in chosen for answer in (f.prompt, *f.rephrase)}
    kept = [p for p in bank.neighbours if gives(said.bare[p.prompt], p.answers) and p.prompt not in new]
    known = {p.prompt for p in kept}
    # a probe that the model gets wrong already says nothing about the edit
    facts_with = (replace(f, locality=tuple(p for p in f.locality if p.prompt in known)) for f in chosen)
    return Bank(tuple(facts_with), tuple(kept))


def names(reply: str, answers: Sequence[str], others: Sequence[str] = ()) -> bool:
    """Whether the first sentence of a reply names one of the answers, and none of the others."""
    first = clip(reply)
    return any(mentions(first, a) for a in answers) and not any(mentions(first, o) for o in others)


def circle(em: EditableModel, path: Path, prompt: str, work: Path) -> Circle:
    """Loads the patch at `path` as anyone would, merges it into a copy of the model in the folder `work`,
    and takes it out again."""
    source = Source(em.ref, em.path, em.commit)
    peft = _generated(em, em.path, prompt, path)
    out = work / "merged"
    done = merge([Patch.load(path)], source, out)
    merged = _generated(em, out, prompt, None)
    revert(out, everything=True, base=source)
    weights = [file.name for file in em.path.iterdir() if file.suffix in (".safetensors", ".json")]
    same = all(
        (out / name).is_file() and filecmp.cmp(em.path / name, out / name, shallow=False) for name in weights
    )
    return Circle(peft, merged, len(done.record.tensors), same)


def _generated(em: EditableModel, folder: Path, prompt: str, adapter: Path | None) -> str:
    """The answer of a folder's model, with an adapter by PEFT, loaded without hubedit."""
    import transformers
    from transformers.utils import logging

    bars: Any = logging
    bars.disable_progress_bar()
    auto: Any = getattr(transformers, em.family.loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries say to each other is not for the reader
        model: Any = auto.from_pretrained(folder, dtype=em.dtype, local_files_only=True).to(em.device)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        ids = em.tokenizer(prompt, return_tensors="pt").to(em.device)
        out = model.eval().generate(**ids, max_new_tokens=_BARE_TOKENS, do_sample=False)
    text = em.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return clip(str(text))
