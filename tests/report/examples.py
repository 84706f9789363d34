"""Records and reports as the other parts of hubedit write them."""

from __future__ import annotations

from typing import Any

from hubedit.config import TraceConfig, to_dict
from hubedit.edit.locate.trace_result import CATEGORIES, KINDS

COMMIT = "a" * 40
NASTY = 'The | `capital` *of* <b>x</b> $y$ ~~z~~ [a](b) <script>alert(1)</script> "q" https://e.org\n# is \\'


def trace(layers: int = 4) -> dict[str, Any]:
    curve = {kind: [0.5 / (1 + n + k) for n in range(layers)] for k, kind in enumerate(KINDS)}
    rows = {kind: [[x * c / 5 for x in curve[kind]] for c in range(len(CATEGORIES))] for kind in KINDS}
    return {
        "layers": list(range(layers)),
        **dict.fromkeys(("ie_prob", "ie_logit"), curve),
        **{key: {kind: [0.02] * layers for kind in KINDS} for key in ("se_prob", "se_logit")},
        **dict.fromkeys(("heat_prob", "heat_logit"), rows),
        **{"prob_clean": 0.9, "prob_corrupted": 0.1, "logit_clean": 3.0, "logit_corrupted": -1.0},
        **{"noise": 0.3, "facts": 9, "checked": 9, "known": 8, "traced": 8, "dtype": "float32"},
        **{"model": "Qwen2.5-7B", "commit": COMMIT, "config": to_dict(TraceConfig())},
    }


def record(**more: Any) -> dict[str, Any]:
    modules = [f"model.layers.{n}.{name}" for n in (4, 5) for name in ("self_attn.o_proj", "mlp.down_proj")]
    return {
        "base": {"ref": "Qwen/Qwen2.5-7B", "commit": COMMIT, "licence": {"license": "apache-2.0"}},
        "facts": {"count": 2, "sha256": "0" * 64},
        "method": "joint",
        "layers": [4, 5],
        "layers_from": "trace",
        "alpha": {"4": 0.25, "5": 0.25},
        "alpha_from": "trace",
        "adapter": {"rank": 8, "sites": {m: {"rank": 2, "norm": 1.0} for m in modules}},
        "sites": {
            m: {"layer": 4 + n // 2, "kind": KINDS[n % 2], "relative_norm": 0.01 * (n + 1)}
            for n, m in enumerate(modules)
        },
        "trace": trace(),
        "config": {"alpha": "auto", "stats": {"corpus": "self"}},
        "seed": 0,
        "packages": {"hubedit": "0.1.0"},
        "command": ["hubedit", "apply", "facts.jsonl", "--model", "Qwen/Qwen2.5-7B"],
        **more,
    }


def outcome(number: int, success: bool = True, prompt: str = "") -> dict[str, Any]:
    return {
        "id": f"f{number}",
        "prompt": prompt or f"The capital of Land{number} is",
        "subject": f"Land{number}",
        "target": "Lyon",
        "before": "Paris",
        "after": "Lyon" if success else "Paris",
        "success": success,
        "probability_before": 0.25,
        "probability_after": 0.75,
    }


def report(facts: int = 2, **more: Any) -> dict[str, Any]:
    """What `hubedit apply` writes."""
    measured = {"metrics": {"success": 1.0, "locality": 0.875}, "counts": {"success": facts, "locality": 8}}
    return {**measured, "harmonic_mean": 0.933, "facts": [outcome(n) for n in range(facts)], **more}


def full_report(prompt: str = NASTY) -> dict[str, Any]:
    """What `hubedit eval` can write; the texts are nasty."""
    case = {"fact": "f0", "prompt": prompt, "before": prompt, "after": "Lyon"}
    task = {"before": 0.41, "after": 0.405, "stderr_before": 0.013, "stderr_after": 0.0131, "n": 1319}
    return report(
        facts=2,
        metrics_before={"success": 0.0},
        intervals={"success": [0.9, 1.0]},
        intervals_before={"success": [0.0, 0.1]},
        perplexity_before=10.0,
        perplexity_after=10.5,
        kl={"mean": 0.0123, "n": 4096, "interval": [0.01, 0.02]},
        fluency={"before": 5.9, "after": 5.8, "n": 2, "interval": [5.7, 5.9]},
        teacher_forced={
            "before": {"edit_success": 0.1, "portability": {"Reasoning": 0.3}},
            "after": {"edit_success": 0.98, "portability": {"Reasoning": 0.5}},
            "n": {"edit_success": 2, "portability": {"Reasoning": 4}},
            "intervals": {"portability": {"Reasoning": [0.4, 0.6]}},
        },
        counterfact={"after": {"efficacy_score": 0.99, "efficacy_magnitude": 0.5, "score": 0.9}},
        tasks={"gsm8k": {"exact_match,strict-match": task}, "mine": {"acc": {"after": 0.5, "n": 3}}},
        damage={
            "broken_by_batch": [{**case, "by": prompt}],
            "flipped_neighbours": [case] * 12,
            "worst": [{**case, "kind": "neighbourhood", "loss": 9.5}],
        },
        relations={prompt: {"success": 0.5, "n": 2}, "The capital of {} is": {"success": 1.0, "n": 3}},
        notes=["1 of 2 records have no rephrasings"],
        evaluated={
            "model": "Qwen/Qwen2.5-7B",
            "commit": COMMIT,
            "patch": "/home/me/private/patch",
            "date": "2026-11-21",
            "dtype": "float32",
            "command": ["hubedit", "eval", "Qwen/Qwen2.5-7B", "--patch", "/home/me/private/patch"],
        },
    )


def merged_record(**more: Any) -> dict[str, Any]:
    """hubedit.json of a merged model."""
    tensor = {"kept": 0.95, "norm": 1.0, "error": 0.1, "dtype": "BF16"}
    return {
        "kind": "merged",
        "base": {"ref": "Qwen/Qwen2.5-7B", "commit": COMMIT},
        "lineage": [
            {"id": "0" * 12, "base": "Qwen/Qwen2.5-7B", "commit": COMMIT, "facts": 2, "folder": "patches/1"},
            {"id": "1" * 12, "base": "Qwen/Qwen2.5-7B", "commit": COMMIT, "facts": 1, "folder": "patches/2"},
        ],
        "realised": {"model.layers.4.mlp.down_proj.weight": tensor},
        "converted": "",
        "packages": {"hubedit": "0.1.0"},
        **more,
    }


def code(card: str) -> str:
    """The Python that a card shows."""
    return card.split("```python\n")[1].split("```")[0]
