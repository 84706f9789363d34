"""What of a patch folder goes to the Hub: known files only, fit for the eyes of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.errors import HubError
from hubedit.facts.dump import to_record
from hubedit.hub.changes import Content, Tree, Upload
from hubedit.hub.private import check_silent, nameless, numbers_only, without_paths
from hubedit.report.markup import last

if TYPE_CHECKING:
    from hubedit.facts import Fact
    from hubedit.patch import Patch

CARD, REPORT, RECORD, FACTS = "README.md", "report.json", "hubedit.json", "facts.jsonl"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KNOWN = re.compile(
    r"README\.md|report\.(json|html)|hubedit\.json|facts\.jsonl|adapter_config\.json|"
    r"adapter_model\.safetensors|plots/[\w-]+\.png|\.eval_results/[\w-]+\.ya?ml|(LICENSE|NOTICE)[\w.-]*"
)
_OWN = re.compile(r"report\.(json|html)|facts\.jsonl|plots/[\w-]+\.png|\.eval_results/[\w-]+\.ya?ml")
# the card's line of code that loads the patch, by the name that it had until now
_LOADS = re.compile(r'(PeftModel\.from_pretrained\(base, )"(?:[^"\\\n]|\\.)*"')
# files that show facts and cannot be cleaned: drawings and pages
WITH_FACTS = ("report.html", "plots/relations.png")


@dataclass(frozen=True)
class Base:
    """The base model at the Hub, pinned. `commit`: 40 hexadecimal digits."""

    repo: str
    commit: str


@dataclass(frozen=True, eq=False)
class Contents:
    """`files` by path in the repository; `left_out`: files of the folder that are not pushed."""

    files: Mapping[str, Content]
    left_out: tuple[str, ...]
    base: Base
    facts: int
    patch: Patch


def base_of(patch: Patch, folder: Path, base: Base | None) -> Base:
    """The patch's base at the Hub. Raises HubError for a local one, where `base` does not name it."""
    if base is not None:
        return base
    if re.fullmatch("[0-9a-f]{40}", patch.commit) and not patch.base.startswith((".", "/", "~")):
        return Base(patch.base, patch.commit)
    raise HubError(
        f"the base of {folder} is the local folder {last(patch.base) or patch.base}, which nobody else has",
        "push the base model too, then name it: --base OWNER/NAME[@REVISION]",
    )


def pinned(folder: Path) -> bool:
    """Whether a patch names its base at the Hub."""
    return bool(_read(folder / CONFIG).get("revision"))


def patch_contents(folder: Path, repo: str, *, base: Base | None = None, with_facts: bool = True) -> Contents:
    """The files of a patch's repository, without local paths. Raises PatchError, HubError.

    `base`: where a base that is a local folder can be found at the Hub. `with_facts`: False keeps every
    word of the facts out of all files, and the names of files and folders, which often tell them; the
    facts' number and hash stay.
    """
    from hubedit.patch import Patch

    patch = Patch.load(folder)
    there = base_of(patch, folder, base)
    record = without_paths(_read(folder / RECORD))
    moved = there != Base(patch.base, patch.commit)
    if moved or record.get("base", {}).get("ref") != there.repo:
        record["base"] = {**record.get("base", {}), "ref": there.repo, "commit": there.commit}
    if not with_facts:
        record = nameless(record)
    report = without_paths(_read(folder / REPORT)) if (folder / REPORT).is_file() else {}
    shown = report if with_facts else numbers_only(report)

    found = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files: dict[str, Content] = {}
    for name, path in found.items():
        hidden = not with_facts and (name == FACTS or name in WITH_FACTS)
        if KNOWN.fullmatch(name) and not hidden:
            files[name] = Upload(path)
    facts = patch.facts if with_facts else None
    config = {**_read(folder / CONFIG), "base_model_name_or_path": there.repo, "revision": there.commit}
    files[CONFIG] = json_upload(config)
    files[RECORD] = json_upload(record)
    if report:
        files[REPORT] = json_upload(shown)
    files[CARD] = _card(folder, repo, record, shown, files, facts, fresh=moved or not with_facts)
    if not with_facts:
        for name, content in files.items():
            if isinstance(content, Upload) and not name.endswith((".png", ".safetensors")):
                check_silent(name, _text(content), patch.facts)
    left_out = tuple(name for name in found if name not in files)
    count = int(record.get("facts", {}).get("count", len(patch.facts)))
    return Contents(files, left_out, there, count, patch)


def stale(wanted: Mapping[str, Content], tree: Tree) -> Iterable[str]:
    """Files of an earlier push that the new one has no longer."""
    return [path for path in tree if _OWN.fullmatch(path) and path not in wanted]


def kind_of(tree: Tree) -> str:
    """ "patch", "model", or "" for a repository that holds neither."""
    if CONFIG in tree:
        return "patch"
    weights = any(path.endswith(".safetensors") and "/" not in path for path in tree)
    return "model" if weights and "config.json" in tree else ""


def _card(
    folder: Path,
    repo: str,
    record: Mapping[str, Any],
    report: Mapping[str, Any],
    files: Mapping[str, Content],
    facts: Iterable[Fact] | None,
    *,
    fresh: bool,
) -> Upload:
    """README.md with the repository's name: the folder's, which someone may have edited, or a fresh one.

    `facts`: None where the card shall not tell them.
    """
    if (folder / CARD).is_file() and not fresh:
        text = (folder / CARD).read_text(encoding="utf-8")
        return Upload(
            _LOADS.sub(lambda found: found[1] + json.dumps(repo, ensure_ascii=False), text).encode()
        )
    from hubedit.report.card import patch_card
    from hubedit.report.plots import plots

    with_facts, shown = facts is not None, [to_record(fact) for fact in facts or ()]
    drawn = [plot for plot in plots(record, report, with_facts=with_facts) if plot.file in files]
    card = patch_card(record, report, with_facts=with_facts, name=repo, facts=shown, plots=drawn)
    return Upload(card.encode())


def _text(content: Upload) -> str:
    data = content.source if isinstance(content.source, bytes) else content.source.read_bytes()
    return data.decode("utf-8", errors="replace")


def _read(path: Path) -> dict[str, Any]:
    from hubedit.patch.adapter import read_json

    return read_json(path)


def json_upload(data: Mapping[str, Any]) -> Upload:
    """A file of JSON data, whose bytes depend on nothing else."""
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Upload(f"{text}\n".encode())
