"""Does hubedit fit this model, and this machine? Answered without reading the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import torch

from hubedit.config import EditConfig
from hubedit.demo import everyday_path
from hubedit.errors import HubEditError
from hubedit.facts import Fact, check_tokens, load_facts
from hubedit.facts.tokens import load_tokenizer
from hubedit.hub.account import client
from hubedit.hub.changes import read_tree, resolve
from hubedit.hub.contents import kind_of
from hubedit.model.editable import EditableModel
from hubedit.model.families import family_of
from hubedit.model.fetch import check, find, is_path
from hubedit.model.instruct import instructed
from hubedit.model.memory import free_memory
from hubedit.model.sites import Site
from hubedit.plan import Plan, plan, skeleton
from hubedit.readers import Reading, readings

Verdict = Literal["ok", "note", "problem"]
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """`todo`: the next step, "" where there is nothing to do."""

    about: str
    verdict: Verdict
    what: str
    todo: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """`plan`: of an edit of some facts that everybody knows, on this machine; `memory`: bytes that are free
    there (None: not known). None and empty where the model cannot be edited."""

    model: str
    findings: tuple[Finding, ...]
    plan: Plan | None = None
    memory: int | None = None
    readers: tuple[Reading, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model can be edited."""
        return all(f.verdict != "problem" for f in self.findings)


def diagnose(
    ref: str, *, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False
) -> Diagnosis:
    """Looks at a folder, `repo` or `repo@revision`: of the Hub only the list of files, the configuration and
    the tokenizer. What is wrong with the model is in the result; raises ConfigError for a device or type
    that is not there, ModelError or HubError for a model that cannot be found."""
    findings: list[Finding] = []

    def tried(about: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except HubEditError as error:
            findings.append(Finding(about, "problem", error.message, error.hint))
            return None

    folder = _found(ref)
    tried("files", lambda: _files(ref))
    config = _config(folder)
    if not config:
        return Diagnosis(ref, tuple(findings))
    family = tried("family", lambda: family_of(SimpleNamespace(**config)))
    # transformers reads the configuration for the tokenizer too, and not every one of another family
    if family is None or tried("tokenizer", lambda: load_tokenizer(ref)) is None or findings:
        return Diagnosis(ref, tuple(findings))
    em = tried("family", lambda: skeleton(ref, trust_remote_code=trust_remote_code))
    if em is None:
        return Diagnosis(ref, tuple(findings))
    facts = load_facts(everyday_path()).facts
    made = plan(em, facts, EditConfig(), device=device, dtype=dtype)
    free = _free(torch.device(made.device))
    findings += [*_parts(em, made), *_tokenizer(em, facts), *_machine(made, free)]
    return Diagnosis(ref, tuple(findings), made, free, readings(em.family.name, made.rank))


def _found(ref: str) -> Path:
    """The folder with at least configuration and tokenizer. Raises ModelError."""
    if is_path(ref):
        return find(ref).folder
    from huggingface_hub import snapshot_download

    from hubedit.errors import ModelError
    from hubedit.remote import translated_errors

    repo, _, revision = ref.partition("@")
    with translated_errors(repo, revision or None, kind=ModelError, doing="download"):
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=["*.json", "*.jinja"]))


def _files(ref: str) -> None:
    """Raises ModelError or HubError for what holds no model in safetensors."""
    if is_path(ref):
        check(find(ref))
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        check(find(ref))
        return
    repo, _, revision = ref.partition("@")
    api = client()
    kind = kind_of(read_tree(api, repo, resolve(api, repo, revision or "main")))
    if kind != "model":
        what = "a patch" if kind else "no model in safetensors format"
        hint = "name its base model" if kind else "convert its weights: load and save_pretrained"
        raise HubEditError(f"{repo} holds {what}", hint)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _parts(em: EditableModel, made: Plan) -> Iterator[Finding]:
    """Family and sites."""
    size = f"{made.parameters / 1e6:,.0f} million parameters"
    yield Finding("family", "ok", f"{em.family.name}: {size}, {em.num_layers} layers, width {em.hidden_size}")
    shapes = []
    for kind in ("attention", "mlp"):
        site = Site(0, kind)
        d_out, d_in = em.weight(site).shape
        shapes.append(f"{em.module_name(site).replace('.0.', '.N.')} ({d_out} x {d_in})")
    layers = ", ".join(map(str, made.layers))
    yield Finding("sites", "ok", f"{' and '.join(shapes)}; by default the MLP of layers {layers} is edited")


def _tokenizer(em: EditableModel, facts: Sequence[Fact]) -> Iterator[Finding]:
    """Tokenizer and chat template."""
    tokenizer = em.tokenizer
    bos = "puts its BOS token in front" if em.has_bos else "no BOS token in front"
    yield Finding("tokenizer", "ok", f"{len(tokenizer):,} tokens, character offsets, {bos}")
    if len(tokenizer) > em.vocabulary:
        what = f"{len(tokenizer):,} tokens, but the model has {em.vocabulary:,}"
        yield Finding("tokenizer", "note", what, "do not use the tokens above that in facts")
    if lost := check_tokens(facts, tokenizer, everyday_path().name):
        what = f"{len(lost)} of {len(facts)} everyday facts cannot be placed in its tokens"
        yield Finding("tokenizer", "note", what, "hubedit facts check FACTS --model MODEL lists yours")
    if tokenizer.chat_template:
        why = instructed(em.path, em.ref, em.model.config.to_dict())
        text = f"a chat template, used by default ({why})" if why else "a chat template, not used by default"
        yield Finding("chat", "ok", text, "" if why else "add --chat on where people will chat with it")
    else:
        yield Finding(
            "chat", "note", "no chat template: a base model", "write facts as sentences to complete"
        )


def _machine(made: Plan, free: int | None) -> Iterator[Finding]:
    """Memory and time."""
    need = f"{made.cost.words} for {made.facts} facts"
    where = f"{made.device}, {made.dtype}"
    if free is None:
        yield Finding("machine", "ok", f"{need} ({where})")
    elif made.memory > free:
        narrow = "" if made.dtype.endswith("16") else "--dtype bfloat16, "
        todo = f"use {narrow}--max-memory (several GPUs or disk), or a larger machine"
        yield Finding("machine", "problem", f"{need}, and {free / 1e9:.1f} GB are free ({where})", todo)
    else:
        yield Finding("machine", "ok", f"{need}; {free / 1e9:.1f} GB are free ({where})")


def _free(device: torch.device) -> int | None:
    """Bytes that are free; None where the system does not say."""
    if device.type == "cuda":
        return free_memory(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found and device.type == "cpu" else None
