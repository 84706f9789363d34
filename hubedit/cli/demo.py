"""See it work: 50 facts edited in the bundled model, step by step."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from hubedit.cli.output import Output

if TYPE_CHECKING:
    from hubedit.facts import Fact
    from hubedit.pipeline import Applied

_EDITS, _SHOWN = 50, 8
# in the words of a newcomer; the names of the fields are in docs/facts.md
_METRICS = {
    "success": "the edited prompts give the new answer",
    "generalisation": "rephrasings give it too",
    "portability": "two-hop questions follow it",
    "locality": "other facts about the same subject unchanged",
    "neighbourhood": "facts about other subjects unchanged",
}


def demo(
    out: Annotated[Path, Option("--out", "-o", help="Where the patch goes.")] = Path("hubedit-demo"),
    force: Annotated[bool, Option("--force", help="Replace the patch of an earlier demo.")] = False,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """See it work: edit 50 facts of the bundled model, test them, and load the patch with PEFT."""
    from hubedit.demo import facts_path, model_path

    walk(Output(json=json, quiet=quiet), model_path(), facts_path(), out, force, device, cache)


def walk(
    sink: Output, model: Path, facts: Path, out: Path, force: bool, device: str, cache: Path | None
) -> None:
    """The whole tour on any model and facts."""
    from hubedit.cache import Cache
    from hubedit.cli.applied import facts_table, table_of
    from hubedit.config import EditConfig
    from hubedit.facts import load_facts
    from hubedit.model.load import load
    from hubedit.pipeline import apply_facts, check_free

    check_free(out, force)
    chosen = load_facts(facts, limit=_EDITS).facts
    with sink.progress() as progress:
        progress.start("loading the bundled model")
        em = load(str(model), device=device)
        millions = sum(p.numel() for p in em.model.parameters()) / 1e6
        progress.finish(f"{em.family.name}, {millions:.1f} million parameters, on {em.device}")
        sink.show(f"\n1. What the model knows, and what {len(chosen)} edits shall change\n")
        sink.show(_asked(em, chosen[:_SHOWN]))
        sink.show("\n2. Computing the patch (the model itself stays as it is)\n")
        applied = apply_facts(
            em,
            chosen,
            EditConfig(),
            out=out,
            cache=Cache(cache),
            progress=progress,
            source=str(facts),
            overwrite=force,
            command=("hubedit", "apply", facts.name, "--model", str(model), "--out", str(out)),
        )
    report = applied.report
    sink.show("\n3. What the model says with the patch\n")
    sink.show(facts_table(report.outcomes[:_SHOWN]))
    rows = [
        (text, f"{100 * report.metrics[name]:5.1f} % of {report.counts[name]} prompts")
        for name, text in _METRICS.items()
        if name in report.metrics
    ]
    sink.show("")
    sink.show(table_of(rows))
    fact = next((o.fact for o in report.outcomes if o.success), report.outcomes[0].fact)
    said = _through_peft(applied, model, fact.prompt, em.device)
    sink.show("\n4. The patch is a plain LoRA adapter: peft.PeftModel loads it, and the model goes on\n")
    sink.show(f"   {fact.prompt} ... {said}")
    metrics = {"metrics": report.metrics, "counts": report.counts, "harmonic_mean": report.harmonic_mean}
    peft = {"prompt": fact.prompt, "answer": said}
    value = {"path": applied.path, "model": model, "facts": len(chosen), **metrics, "peft": peft}
    sink.data(value, human=lambda: _next(applied, model, fact), brief=str(applied.path))


def _asked(em: Any, facts: tuple[Fact, ...]) -> Any:
    """Prompts, what the model says, and what it shall say."""
    from hubedit.cli.output import table
    from hubedit.facts.answers import clip
    from hubedit.model.generate import greedy

    said = greedy(em, [fact.prompt for fact in facts], 10)
    rows = [(f.prompt, clip(text), f.target) for f, text in zip(facts, said, strict=True)]
    return table(("prompt", "the model says", "it shall say"), rows)


def _through_peft(applied: Applied, model: Path, prompt: str, place: Any) -> str:
    """The answer to a prompt of base model and patch, loaded as anyone would load them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from hubedit.facts.answers import clip

    bars: Any = logging
    bars.disable_progress_bar()
    auto: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries say to each other is not for the reader
        base = auto.from_pretrained(model, dtype="float32").to(place)
        edited: Any = PeftModel.from_pretrained(base, str(applied.path)).eval()
        ids = tokenizer(prompt, return_tensors="pt").to(place)
        out = edited.generate(**ids, max_new_tokens=10, do_sample=False)
    return clip(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def _next(applied: Applied, model: Path, fact: Fact) -> str:
    place, where = shlex.quote(str(applied.path)), shlex.quote(str(model))
    return "\n".join(
        (
            "\n5. Where it is, and what to do next\n",
            f"   {applied.path}  (its card is README.md; hubedit.json says how it was made)",
            "",
            "   Ask without and with the patch:",
            f"     hubedit ask {where} --patch {place} {shlex.quote(fact.prompt)}",
            "   Edit your own facts, in this model or in any other:",
            f"     hubedit apply my-facts.jsonl --model {where} --out my-patch",
        )
    )
