"""Push a patch as a repository that PEFT loads, in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.errors import HubError
from hubedit.hub import contents
from hubedit.hub.account import Visibility, client, created, visibility, with_retries, writer
from hubedit.hub.changes import Changes, Content, compare, read_tree, resolve
from hubedit.hub.commit import Committed, Place, Stale, commit
from hubedit.hub.contents import Base
from hubedit.hub.refs import check_branch, check_tag
from hubedit.progress import Progress, Silent
from hubedit.remote import client_errors, explain
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Where:
    """Where a push goes. `private`: None is private for a new repository, and as it is for an old one.

    `revision`: a branch, or `refs/pr/N` to go on with a pull request; `pr`: open a new one; `tag`: what
    the commit is called afterwards; `message`: the commit's first line, "" for a default.
    """

    repo: str
    private: bool | None = None
    revision: str = ""
    pr: bool = False
    tag: str = ""
    message: str = ""


@dataclass(frozen=True)
class Target:
    """A destination that was checked: the login may write there."""

    api: HfApi
    where: Where
    repo: str
    seen: Visibility
    place: Place


@dataclass(frozen=True)
class Pushed:
    """What a push did. `created`: False where the repository held everything already; `url`: of the commit
    or the pull request; `uploaded`, `copied`: bytes by path; `dry_run`: nothing was done."""

    repo: str
    kind: str
    url: str
    commit: str
    revision: str
    created: bool
    private: bool
    tag: str = ""
    uploaded: Mapping[str, int] = field(default_factory=dict)
    copied: Mapping[str, int] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dry_run: bool = False


def check_target(where: Where, kind: str = "patch", *, dry_run: bool = False) -> Target:
    """Everything that can be refused before the long work: the token, its rights, the place. Raises HubError.

    `kind`: "patch", "model" or "stats"; a repository of one kind never becomes one of another. `dry_run`:
    what anybody may see will do.
    """
    if where.pr and where.revision not in ("", "main"):
        raise HubError(
            "--pr and --revision exclude each other", "to go on with a pull request: --revision refs/pr/N"
        )
    if where.pr and where.tag:
        raise HubError("a pull request cannot be tagged", "leave out --tag")
    if where.tag:
        check_tag(where.tag)
    api = client()
    repo = writer(api, where.repo, pr=where.pr, dry_run=dry_run)
    seen = visibility(api, repo, where.private)
    place = Place(repo, where.revision or "main", where.pr)
    if not seen.exists and (where.pr or where.revision not in ("", "main")):
        raise HubError(f"no repository {repo} on the Hub", "push to it first without --pr and --revision")
    if where.pr and not dry_run:
        place = replace(place, user=str(with_retries(api.whoami, repo).get("name")))
    if seen.exists:
        if place.revision != "main":
            check_branch(api, repo, place.revision)
        head = resolve(api, repo, place.revision)
        if place.revision == head:
            raise HubError(f"{head[:8]} is a commit, and nothing can be added to one", "name a branch")
        found = contents.kind_of(read_tree(api, repo, head))
        if found and found != kind:
            raise HubError(
                f"{repo} holds a {found}, and a {kind} beside it would be loaded wrongly",
                f"push the {kind} to a repository of its own",
            )
    return Target(api, where, repo, seen, place)


def push_patch(
    folder: Path,
    target: Target,
    *,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes a patch folder. The folder is only read.

    `base`: `repo[@revision]` at the Hub of a base that is a local folder here; it must be the very same
    model. Raises PatchError for a damaged patch, HubError; then the repository is as it was.
    """
    from hubedit.patch.doubts import doubts, too_wide

    progress = progress or Silent()
    progress.start("checking the patch")
    there = find_base(target.api, folder, base) if base else None
    made = contents.patch_contents(folder, target.repo, base=there, with_facts=with_facts)
    message = target.where.message or f"Patch of {plural(made.facts, 'edited fact')} for {made.base.repo}"
    progress.finish(f"{len(made.files)} files")
    done = put(
        target,
        "patch",
        made.files,
        lambda tree: contents.stale(made.files, tree),
        message,
        dry_run=dry_run,
        progress=progress,
    )
    notes = [*done.notes, *(doubt for doubt in (*doubts(made.patch), too_wide(made.patch)) if doubt)]
    if not with_facts and contents.FACTS in done.deleted:
        notes.append("earlier commits of the repository still hold the facts")
    return replace(done, left_out=made.left_out, notes=tuple(notes))


def put(
    target: Target,
    kind: str,
    files: Mapping[str, Content],
    stale: Stale,
    message: str,
    *,
    dry_run: bool,
    progress: Progress,
) -> Pushed:
    """The commit, the tag, and what they came to. Raises HubError."""
    from huggingface_hub import get_token

    seen, place, api = target.seen, target.place, target.api
    if dry_run:
        tree = read_tree(api, target.repo, resolve(api, target.repo, place.revision)) if seen.exists else {}
        url = f"{api.endpoint}/{target.repo}"
        changes = compare(files, stale(tree), tree)
        plan = _pushed(target, kind, Committed("", False, url, place.revision, changes), dry_run=True)
        if get_token() is None and not seen.exists:
            return replace(
                plan, notes=(*plan.notes, f"without a Hub token a private {target.repo} is not seen")
            )
        return plan
    if target.where.tag and seen.exists:
        _tag_is_free(target, files, stale)
    progress.start("pushing")
    with created(api, seen):
        made = commit(api, place, files, stale, message)
    progress.finish(made.commit[:8])
    if target.where.tag:
        _tag(api, target.repo, target.where.tag, made.commit)
    return _pushed(target, kind, made)


def find_base(api: HfApi, folder: Path, ref: str) -> Base:
    """The base at the Hub, when it is the model that the patch was made for. Raises HubError."""
    from hubedit.patch.adapter import read_json

    repo, _, revision = ref.partition("@")
    commit_ = resolve(api, repo, revision or "main")
    wanted = str((read_json(folder / contents.RECORD).get("base") or {}).get("identity") or "")
    if wanted and wanted != commit_ and wanted != _identity(api, repo, commit_):
        raise HubError(
            f"{repo} is not the model that the patch was made for: its files differ",
            "push the base model as it is, or give the right --base",
        )
    return Base(repo, commit_)


def _identity(api: HfApi, repo: str, commit_: str) -> str:
    """What `hubedit.model.fetch.identity` says of a folder with the same files, without their weights."""
    import hashlib
    import json

    tree = read_tree(api, repo, commit_)
    names = ["model.safetensors"]
    index = "model.safetensors.index.json"
    if "model.safetensors" not in tree and index in tree:
        names = sorted(set(json.loads(_download(api, repo, commit_, index))["weight_map"].values()))
    total = hashlib.sha256()
    for name in ("config.json", *names):
        there = tree.get(name)
        if there is None:
            raise HubError(f"{repo} has no {name}", "give the repository of the base model")
        digest = there.sha256 or hashlib.sha256(_download(api, repo, commit_, name)).hexdigest()
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()


def _download(api: HfApi, repo: str, commit_: str, name: str) -> bytes:
    return Path(
        with_retries(lambda: api.hf_hub_download(repo, name, revision=commit_), repo, doing="download")
    ).read_bytes()


def _pushed(target: Target, kind: str, made: Committed, *, dry_run: bool = False) -> Pushed:
    changes: Changes = made.changes
    seen = target.seen
    private = seen.private
    notes = () if private else (f"{target.repo} is public: everybody can read it",)
    return Pushed(
        repo=target.repo,
        kind=kind,
        url=made.url,
        commit=made.commit,
        revision=made.revision,
        created=made.created,
        private=private,
        tag=target.where.tag,
        uploaded={path: content.size for path, content in changes.uploaded.items()},
        copied={path: content.size for path, content in changes.copied.items()},
        deleted=changes.deleted,
        kept=changes.kept,
        notes=notes,
        dry_run=dry_run,
    )


def _tag_is_free(target: Target, files: Mapping[str, Content], stale: Stale) -> None:
    """Raises HubError for a tag that names another state than the one that is pushed."""
    api, repo, tag = target.api, target.repo, target.where.tag
    refs: Any = with_retries(lambda: api.list_repo_refs(repo), repo)
    for found in refs.tags:
        if found.name == tag:
            tree = read_tree(api, repo, found.target_commit)
            if not compare(files, stale(tree), tree).nothing:
                raise HubError(f"{repo} has a tag {tag} already, for something else", "choose another --tag")


def _tag(api: HfApi, repo: str, tag: str, commit_: str) -> None:
    refs: Any = with_retries(lambda: api.list_repo_refs(repo), repo)
    known = {found.name: found.target_commit for found in refs.tags}
    if tag in known:
        return
    try:
        api.create_tag(repo, tag=tag, revision=commit_)
    except client_errors() as error:
        trouble = explain(error, repo, commit_, doing="tag")
        raise HubError(
            f"commit {commit_[:8]} is at {repo}, but its tag {tag} could not be set: {trouble.message}",
            trouble.hint or "run the same command again",
        ) from error
