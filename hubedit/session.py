"""Edits tried one after another on a loaded model: each can be taken back, and the last state be saved."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.environment import base_name
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.facts.line import written
from hubedit.folder import write_folder
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, worded
from hubedit.patch.value import RECORD
from hubedit.pipeline import Applied, apply_facts
from hubedit.progress import Progress

_NEW_TOKENS = 16


class Session:
    """The model stays as it is; each state is a whole tested patch of all facts so far, in its own folder.

    `folder`: where the states lie until the session ends; `name`: what the saved patch will be called.
    """

    def __init__(
        self,
        em: EditableModel,
        config: EditConfig,
        *,
        folder: Path,
        name: str,
        cache: Cache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._em, self._config = em, config
        self._folder, self._name = folder, name
        self._cache, self._progress = cache, progress
        self._states: list[Applied] = []
        self._count = 0

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts edited so far."""
        return self._states[-1].patch.facts if self._states else ()

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """What the model says to each prompt, with the edits so far."""
        em = self._em
        if self._states:
            em = em.with_patch(self._states[-1].patch.by_site(em))
        return greedy_answers(em, [(prompt, worded(em, prompt)) for prompt in prompts], _NEW_TOKENS)

    def edit(self, fact: Fact) -> Applied:
        """Edits one fact more; another target of the same prompt takes the old one's place.

        Raises what `apply_facts` raises; then the edits so far stay.
        """
        facts = [*(f for f in self.facts if f.prompt != fact.prompt), fact]
        self._count += 1
        options = [word for f in facts for word in ("--fact", written(f))]
        model, name = base_name(self._em), self._name
        made = apply_facts(
            self._em,
            facts,
            self._config,
            out=self._folder / str(self._count) / name,
            cache=self._cache,
            progress=self._progress,
            source="the fact",
            command=("hubedit", "apply", *options, "--model", model, "--out", name),
        )
        self._states.append(made)
        return made

    def undo(self) -> Fact | None:
        """Takes the last edit back; returns its fact, None where there is none."""
        return self._states.pop().patch.facts[-1] if self._states else None

    def save(self, out: Path, *, overwrite: bool = False) -> Path:
        """Writes the patch of the edits so far. Raises ConfigError where there are none, or where something
        is in the way."""
        if not self._states:
            raise ConfigError("there is no edit to save", "edit a fact first")
        source = self._states[-1].path

        def fill(part: Path) -> None:
            shutil.copytree(source, part, dirs_exist_ok=True)

        write_folder(out, fill, marker=RECORD, overwrite=overwrite)
        return out
