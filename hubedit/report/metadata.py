"""What the Hub reads: the YAML head of a card with `model-index`, and `.eval_results/*.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hubedit.report.about import base_of
from hubedit.report.licence import licence_metadata
from hubedit.report.markup import last
from hubedit.report.measures import ANSWERS, Json, Measure, measures

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("knowledge-editing", "model-editing", "hubedit")
_TYPES = {
    "success": "prefix_match",
    "generalisation": "prefix_match",
    "portability": "prefix_match",
    "perplexity": "perplexity",
    "kl": "kl_divergence",
    "fluency": "ngram_entropy",
}
# (type, name) of the "data set" each group was measured on; the Hub groups results by the type
_DATA = {
    "answers": ("edited-facts", "The edited facts and their probes (greedy generation)"),
    "exact": ("edited-facts-exact", "The edited facts and their probes (greedy generation, exact match)"),
    "forms": ("edited-facts-forms", "The edited facts asked in other ways (greedy generation)"),
    "automatic": ("edited-facts-automatic", "Probes made from the edited facts (greedy generation)"),
    "text": ("held-out-text", "Held-out text"),
    "teacher-forced": ("edited-facts-teacher-forced", "The edited facts and their probes (teacher-forced)"),
    "counterfact": ("edited-facts-counterfact", "The edited facts and their probes (CounterFact)"),
}
# lm-eval's task -> the benchmark on the Hub: (data set, task of its eval.yaml)
_BENCHMARKS = {
    "gsm8k": ("openai/gsm8k", "gsm8k"),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", "mmlu_pro"),
    "gpqa_diamond_zeroshot": ("Idavidrein/gpqa", "diamond"),
    "gpqa_diamond_cot_zeroshot": ("Idavidrein/gpqa", "diamond"),
}
# the task's main figure is the first of these that was measured
_MAIN = ("exact_match,strict-match", "exact_match", "exact_match,custom-extract", "acc")
FOLDER = ".eval_results"


def front_matter(record: Json, report: Json, *, name: str, merged: bool) -> str:
    """The YAML between the two `---` lines, made by huggingface_hub's own classes.

    A local base has no place on the Hub, so nothing is linked: its folder's name may be someone's model.
    """
    from huggingface_hub import ModelCardData

    base = base_of(record)
    data: dict[str, Any] = {}
    if base["hub"]:
        data["base_model"] = base["name"]
        data["base_model_relation"] = "finetune" if merged else "adapter"
    data["library_name"] = "transformers" if merged else "peft"
    data["pipeline_tag"] = "text-generation"
    data |= licence_metadata(record.get("base") or {}, base["name"] if base["hub"] else "", base["commit"])
    data["tags"] = [*([] if merged else _adapter_tags(data.get("base_model"))), *TAGS]
    results = eval_results(report)
    if results:
        data |= {"model_name": last(name) or "edit", "eval_results": results}
    return ModelCardData(**data).to_yaml().rstrip("\n")


def _adapter_tags(base: str | None) -> list[str]:
    """The tags that PEFT writes into the cards of its adapters, by which the Hub finds them."""
    return [*([f"base_model:adapter:{base}"] if base else []), "lora", "transformers"]


def eval_results(report: Json) -> list[EvalResult]:
    """The measured figures as huggingface_hub's results: shares in per cent, with n, interval and before."""
    from huggingface_hub import EvalResult

    made = []
    for measure in measures(report):
        if measure.after is None or measure.key == "probability":
            continue
        kind, name = _DATA.get(measure.group, ("", ""))
        metric = measure.name
        if measure.group == "tasks":
            task, _, metric = measure.key.partition("/")
            kind, name = _BENCHMARKS[task][0] if task in _BENCHMARKS else task, task
        elif measure.group == "answers" and measure.key in ANSWERS:
            metric = measure.name.partition(":")[0]
        elif measure.key == "harmonic_mean":
            metric = "Harmonic mean"
        made.append(
            EvalResult(
                task_type="text-generation",
                task_name="Text Generation" if measure.group == "tasks" else "Knowledge editing",
                dataset_type=kind,
                dataset_name=name,
                metric_type=_type(measure),
                metric_name=metric,
                metric_value=_scaled(measure, measure.after.value),
                metric_args=_arguments(measure) or None,
            )
        )
    return made


def eval_files(report: Json) -> dict[str, bytes]:
    """`.eval_results/<task>.yaml` of every standard benchmark that was measured; the files by name.

    Empty where the installed huggingface_hub does not know the format.
    """
    import huggingface_hub

    if not hasattr(huggingface_hub, "EvalResultEntry"):
        return {}
    files: dict[str, bytes] = {}
    for task, metrics in (report.get("tasks") or {}).items():
        if task not in _BENCHMARKS or not isinstance(metrics, Mapping):
            continue
        known = {m.key.partition("/")[2]: m for m in measures({"tasks": {task: metrics}})}
        chosen = next((known[metric] for metric in _MAIN if metric in known), None)
        if chosen is None or chosen.after is None:
            continue
        told: Json = report.get("evaluated") or {}
        count = f", n = {chosen.n:,}" if chosen.n is not None else ""
        entry = huggingface_hub.EvalResultEntry(
            dataset_id=_BENCHMARKS[task][0],
            task_id=_BENCHMARKS[task][1],
            value=round(100 * chosen.after.value, 2),
            date=str(told["date"]) if told.get("date") else None,
            notes=f"lm-eval {task}, {chosen.key.partition('/')[2]}{count}",
        )
        entries = huggingface_hub.eval_result_entries_to_yaml([entry])
        text: str = import_module("yaml").safe_dump(entries, sort_keys=False, allow_unicode=True)
        files[f"{FOLDER}/{task}.yaml"] = text.encode()
    return files


def eval_names() -> list[str]:
    """Every file that `eval_files` may write."""
    return [f"{FOLDER}/{task}.yaml" for task in _BENCHMARKS]


def _type(measure: Measure) -> str:
    if measure.group == "tasks":
        return re.sub(r",.*", "", measure.key.partition("/")[2]) or "accuracy"
    if measure.group == "exact":
        return "exact_match"
    return _TYPES.get(measure.key, measure.key.partition("/")[0])


def _scaled(measure: Measure, value: float) -> float:
    return round(100 * value, 2) if measure.unit == "share" else float(f"{value:.6g}")


def _arguments(measure: Measure) -> dict[str, Any]:
    """What belongs to the value: how many, how sure, and what it was before."""
    found: dict[str, Any] = {}
    if measure.n is not None:
        found["n"] = measure.n
    if measure.before is not None:
        found["before"] = _scaled(measure, measure.before.value)
    after = measure.after
    if after is not None and after.low is not None and after.high is not None:
        found["interval_95"] = [_scaled(measure, after.low), _scaled(measure, after.high)]
    if after is not None and after.error is not None:
        found["stderr"] = _scaled(measure, after.error)
    return found
