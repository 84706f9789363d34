"""Find the layers whose attention and MLP carry a model's facts."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.output import Output, as_json, table
from hubedit.cli.place import check_writable, unwritable
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.edit.locate.trace_result import TraceResult

_FILES = ("trace.json", "heatmap.png", "layerwise.png")


class Tokens(StrEnum):
    """Where clean outputs are put back."""

    all = "all"
    subject_last = "subject-last"


def trace(
    model: Annotated[str, Option("--model", help="A folder or repo[@revision].")],
    out: Annotated[Path, Option("--out", "-o", help="Folder for trace.json and the figures.")],
    facts: Annotated[
        Path | None,
        Argument(
            metavar="[FACTS]",
            help="Facts with ground truths (default: the bundled ones).",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        Tokens, Option("--tokens", help="subject-last is faster and gives no heat map.")
    ] = Tokens.all,
    window: Annotated[int, Option("--window", min=1, help="Layers restored together (odd).")] = 1,
    samples: Annotated[int, Option("--samples", min=1, help="Noise samples a fact.")] = 10,
    noise: Annotated[
        float, Option("--noise", min=0, help="In standard deviations of the subjects' embeddings.")
    ] = 3.0,
    max_facts: Annotated[int, Option("--max-facts", min=1, help="Trace at most N known facts.")] = 50,
    seed: Annotated[int, Option("--seed", min=0, max=2**32 - 1, help="Seed of the noise.")] = 0,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    force: Annotated[bool, Option("--force", help="Replace a trace in the folder.")] = False,
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Causal tracing: the effect of every layer's attention and MLP, as JSON and two figures."""
    sink = Output(json=json, quiet=quiet)
    _check_folder(out, force)
    if window % 2 == 0:
        raise ConfigError(f"--window must be odd, not {window}", "it is centred on a layer")

    from hubedit.cache import Cache
    from hubedit.config import TraceConfig
    from hubedit.edit.locate.trace import trace as run
    from hubedit.facts import load_facts
    from hubedit.model.load import load
    from hubedit.parallel import hold
    from hubedit.report.figures import heat_maps, layerwise

    loaded = load_facts(facts if facts is not None else _bundled())
    for notice in loaded.notices:
        sink.note(f"notice: {notice}")
    store = Cache(cache)
    store.check()
    config = TraceConfig(noise, samples, window, max_facts=max_facts, seed=seed)
    if tokens is Tokens.all:
        config = replace(config, tokens="all")
    with sink.progress() as progress:
        progress.start("loading the model")
        em = hold(load, model, device=device, dtype=dtype)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        em = with_chat(sink, em, chat, system)
        result = run(em, loaded.facts, config, store, progress)
    data = result.to_json()
    files = {"trace.json": (as_json(data) + "\n").encode(), "layerwise.png": layerwise(result)}
    if result.heat_prob:
        files["heatmap.png"] = heat_maps(result)
    _write(out, files)
    sink.data(data, human=lambda: _table(result), brief=str(out))
    sink.note(
        f"{result.traced} of {result.known} known facts traced; probability of the answer "
        f"{result.prob_clean:.3f} clean, {result.prob_corrupted:.3f} corrupted"
    )
    sink.note(f"written to {out}: {', '.join(files)}")


def _bundled() -> Path:
    path = Path(__file__).parents[1] / "demo" / "facts.jsonl"
    if not path.is_file():
        raise ConfigError("no facts were given", "name a facts file: hubedit trace FACTS --model ...")
    return path


def _table(result: TraceResult) -> Table:
    """Layer by layer the indirect effect at the subject's last token, with standard errors."""
    columns = ("layer", "attention", "+-", "mlp", "+- ")
    rows = [
        (
            layer,
            f"{result.ie_prob['attention'][layer]:.4f}",
            f"{result.se_prob['attention'][layer]:.4f}",
            f"{result.ie_prob['mlp'][layer]:.4f}",
            f"{result.se_prob['mlp'][layer]:.4f}",
        )
        for layer in result.layers
    ]
    return table(columns, rows, title="Recovered probability, last subject token", right=columns)


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", "name a folder")
    if any((folder / name).exists() for name in ("hubedit.json", "adapter_config.json", "config.json")):
        raise ConfigError(f"{folder} holds a patch or a model", "give another folder with --out")
    if not force and any((folder / name).exists() for name in _FILES):
        raise ConfigError(f"{folder} holds a trace", "give another folder, or --force to replace it")
    check_writable(folder)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Every file whole or not at all; a figure of an older trace does not stay beside a new one."""
    from hubedit.folder import write_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if name not in files:
                (folder / name).unlink(missing_ok=True)
                continue
            write_file(folder / name, files[name])
    except OSError as error:
        raise unwritable(folder, error) from error
