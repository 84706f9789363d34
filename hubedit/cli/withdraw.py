"""A step or single facts of a patch taken out of it: what `hubedit revert` does with a patch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubedit.cli.output import Output
from hubedit.errors import ConfigError


def withdraw(
    sink: Output, folder: Path, out: Path | None, *, last: bool, step: str | None, facts: Sequence[str]
) -> None:
    """Writes the smaller patch to `out`, or in place of the old one. Raises ConfigError for a fact that the
    patch lacks, PatchError where what is named cannot leave."""
    from hubedit.cli.applied import table_of
    from hubedit.facts import to_record
    from hubedit.patch import Patch
    from hubedit.patch.ledger import steps_of, without_facts, without_step
    from hubedit.report.card import patch_card
    from hubedit.report.markup import plural

    if last + (step is not None) + bool(facts) != 1:
        raise ConfigError("what shall be taken out?", "give one of --last, --patch ID and --fact ID")
    old = Patch.load(folder)
    if facts:
        places = {name: n for n, f in enumerate(old.facts) for name in (f.prompt, f.id) if name}
        if unknown := [name for name in facts if name not in places]:
            raise ConfigError(
                f"{folder} has no fact {unknown[0]!r}", "hubedit log PATCH --all lists the prompts"
            )
        new = without_facts(old, {places[name] for name in facts})
    else:
        new = without_step(old, step or "")
    target = out or folder
    content = {"facts": [to_record(fact) for fact in new.facts]}
    shown = bool(new.facts)
    card = patch_card(new.full_record(), content, with_facts=shown, name=target.name)
    new.save(target, with_facts=shown, files={"README.md": card.encode()}, overwrite=out is None)
    gone, left = len(old.facts) - len(new.facts), len(steps_of(new))
    value = {"path": target, "facts": len(new.facts), "steps": left, "taken_out": gone}
    rows = [
        ("taken out", plural(gone, "fact")),
        ("left", f"{plural(len(new.facts), 'fact')} in {plural(left, 'step')}"),
        ("path", str(target)),
    ]
    sink.data(value, human=lambda: table_of(rows), brief=str(target))
    sink.note("its figures were those of all facts: hubedit check asks what is left")
