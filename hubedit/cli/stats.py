"""Second moments of a model's sites: compute them ahead, list them, delete them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hubedit.cli.escape import one_line
from hubedit.cli.facts import QuietOption
from hubedit.cli.output import Output, table
from hubedit.config import StatsConfig

app = typer.Typer(no_args_is_help=True, help="The statistics of a model that an edit preserves.")


class Which(StrEnum):
    """Which of a layer's two sites."""

    both = "both"
    attention = "attention"
    mlp = "mlp"


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit)."),
]


@app.command()
def compute(
    model: Annotated[str, typer.Option("--model", help="A folder or repo[@revision].")],
    layers: Annotated[str, typer.Option("--layers", help="4-8 or 4,6,8; all of them by default.")] = "",
    site: Annotated[Which, typer.Option("--site", help="Which site of each layer.")] = Which.both,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            metavar="FILE|DATASET|self",
            help="A .txt or .jsonl file, a Hub data set (owner/name[/configuration][@revision][:column]), "
            "or self: text that the model writes.",
        ),
    ] = "self",
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="0: 12 x the widest site.")] = 0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the generated text.")
    ] = 0,
    names: Annotated[
        float,
        typer.Option("--names", min=0, max=1, help="Share of sentences about names; published methods: 0."),
    ] = StatsConfig().names,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    cache: CacheOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compute the statistics of a model's sites in one pass; what the cache holds is not computed again."""
    from hubedit.cache import Cache
    from hubedit.edit.locate.layers import parse_layers
    from hubedit.edit.statistics.second_moments import second_moments
    from hubedit.model.load import load
    from hubedit.parallel import hold

    out = Output(json=json, quiet=quiet)
    store = Cache(cache)
    with out.progress() as progress:
        progress.start("loading the model")
        em = hold(load, model, device=device, dtype=dtype)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        wanted = parse_layers(layers, em.num_layers) if layers else tuple(range(em.num_layers))
        sites = [s for s in em.sites() if s.layer in wanted and site.value in ("both", s.kind)]
        found = second_moments(em, sites, StatsConfig(corpus, tokens, seed, names), store, progress)
    rows = [
        {
            "site": str(s),
            "width": em.d_in(s),
            "tokens": m.count,
            "mean square": float(m.matrix.diagonal().mean()),
        }
        for s, m in found.items()
    ]
    columns = ("site", "width", "tokens", "mean square")
    value = {"model": em.ref, "corpus": corpus, "names": names, "cache": store.root, "sites": rows}
    cells = [[r["site"], r["width"], r["tokens"], f"{r['mean square']:.4g}"] for r in rows]
    out.data(value, human=lambda: table(columns, cells, right=columns[1:]), brief=str(store.root))


@app.command(name="list")
def list_(cache: CacheOption = None, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the statistics in the cache."""
    from hubedit.cache import Cache
    from hubedit.edit.statistics.second_moments import cached_entries

    out = Output(json=json, quiet=quiet)
    store = Cache(cache)
    entries = sorted(
        cached_entries(store), key=lambda e: (e.model, e.corpus, int(e.site.partition(".")[0]), e.site)
    )
    columns = ("model", "commit", "corpus", "names", "site", "width", "tokens", "MB")
    cells = [
        (e.model, e.identity[:8], e.corpus, e.names, e.site, e.width, e.tokens, f"{e.size / 1e6:.1f}")
        for e in entries
    ]
    out.data(
        {"cache": store.root, "entries": entries},
        human=lambda: table(columns, cells, right=columns[5:]),
        brief=str(len(entries)),
    )
    out.note(f"{len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB in {store.root}")


@app.command()
def clear(
    cache: CacheOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete all statistics, unfinished passes, generated text and perplexities from the cache."""
    from hubedit.cache import Cache
    from hubedit.edit.statistics.second_moments import clear_entries

    out = Output(json=json, quiet=quiet)
    store = Cache(cache)
    if not yes:
        typer.confirm(one_line(f"Delete the statistics in {store.root}?"), abort=True, err=True)
    count = clear_entries(store)
    out.data({"cache": store.root, "deleted": count}, human=f"{count} entries deleted", brief=str(count))


@app.command()
def push(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name, or a name of your own.")],
    model: Annotated[str, typer.Option("--model", help="Only those of this model.")] = "",
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Of a new repository.  [default: private]", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be sent.")] = False,
    cache: CacheOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Share the cache's statistics and traces through a repository; only hashes of facts are in them."""
    from hubedit.cache import Cache
    from hubedit.cli.push import hide_progress_bars, show
    from hubedit.hub.push import Where, check_target
    from hubedit.hub.share import push_stats

    out = Output(json=json, quiet=quiet)
    hide_progress_bars(quiet or json)
    target = check_target(Where(repo, private=private), "stats", dry_run=dry_run)
    with out.progress() as progress:
        done = push_stats(Cache(cache), target, model=model, dry_run=dry_run, progress=progress)
    show(out, done)


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO[@REVISION]", help="Of `hubedit stats push`.")],
    cache: CacheOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch all statistics and traces of a repository into the cache; each is checked by its hash."""
    from hubedit.cache import Cache
    from hubedit.cli.push import hide_progress_bars
    from hubedit.hub.share import pull_stats

    out = Output(json=json, quiet=quiet)
    hide_progress_bars(quiet or json)
    found = pull_stats(repo, Cache(cache))
    text = f"{len(found.added)} fetched, {found.known} were there already"
    out.data(found, human=text, brief=str(len(found.added)))
