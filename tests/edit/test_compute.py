"""The whole pipeline on tiny models: the base stays as it was, and the same inputs give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig, TraceConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.compute import _on, compute
from hubedit.edit.locate.alpha import MOST_TRACED
from hubedit.edit.locate.layers import default_layers
from hubedit.edit.result import Clock, Edit, check_collapse
from hubedit.edit.solve.site_report import SiteReport
from hubedit.errors import CollapseError, ConfigError
from hubedit.evaluate.forced import forced
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Silent
from tests.edit.editing import FACTS
from tests.pico import FAMILIES, SENTENCES

Editable = Callable[..., EditableModel]


@pytest.fixture
def config(tmp_path: Path) -> EditConfig:
    """Small in every stage; the layers and alpha are given, so that nothing is traced."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES))
    return EditConfig(
        layers="1-2",
        alpha="0.3",
        trace=TraceConfig(samples=2, max_facts=4),
        stats=StatsConfig(str(text), 200),
        targets=TargetConfig(steps=6, contexts=1),
    )


def hooks(em: EditableModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in em.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_edited_and_left_as_it_was(
    family: str, editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    em = editable(family)
    before = em.weights_hash()
    edit = compute(em, FACTS, config, cache=Cache(tmp_path))
    assert em.weights_hash() == before
    assert hooks(em) == 0
    assert edit.layers == (1, 2)
    assert list(edit.factors) == sorted(edit.factors)
    assert set(edit.factors) == set(edit.reports)
    for site, factor in edit.factors.items():
        assert site.layer in edit.layers
        assert factor.rank == len(FACTS)
        assert factor.shape == (em.hidden_size, em.d_in(site))
        assert torch.isfinite(factor.dense()).all()
        assert edit.reports[site].drift <= 1
    asked = [(f.prompt, f.target) for f in FACTS]
    plain = forced(em, asked).values()
    patched = em.with_patch(edit.factors)
    edited = forced(patched, asked).values()
    assert sum(s.logp for s in edited) > sum(s.logp for s in plain), "the targets become likelier"
    assert math.isfinite(edit.perplexity_before) and math.isfinite(edit.perplexity_after)
    assert edit.trace is None


def test_the_same_inputs_give_the_same_bytes_cached_or_not(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    em = editable()
    first = compute(em, FACTS, config, cache=Cache(tmp_path / "a"))
    fresh = compute(em, FACTS, config, cache=Cache(tmp_path / "b"))
    cached = compute(em, FACTS, config, cache=Cache(tmp_path / "a"))
    for other in (fresh, cached):
        assert list(other.factors) == list(first.factors)
        for site, factor in first.factors.items():
            assert torch.equal(other.factors[site].A, factor.A)
            assert torch.equal(other.factors[site].B, factor.B)
        assert other.perplexity_before == first.perplexity_before


@pytest.mark.parametrize("stage", ["tracing", "statistics", "edit, round 1"])
def test_the_base_is_the_same_when_a_stage_is_broken_off(
    stage: str, editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    em = editable()
    before = em.weights_hash()

    class Broken(Silent):
        def start(self, name: str, total: int | None = None, unit: str = "") -> None:
            if name.startswith(stage):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(em, FACTS, replace(config, alpha="auto"), cache=Cache(tmp_path), progress=Broken())
    assert em.weights_hash() == before
    assert hooks(em) == 0


def test_it_continues_from_the_finished_stages(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    class Counted(Cache):
        saved = 0

        def save(self, *given: Any) -> Path:
            self.saved += 1
            return super().save(*given)

    em, cache = editable(), Counted(tmp_path)
    first = compute(em, FACTS, config, cache=cache)
    stages, cache.saved = cache.saved, 0
    second = compute(em, FACTS, config, cache=cache)
    assert stages > 4 and cache.saved == 0, "nothing is computed a second time"
    assert all(torch.equal(second.factors[s].A, f.A) for s, f in first.factors.items())


def test_auto_traces_and_chooses_layers_and_alpha(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    em = editable("qwen2")
    edit = compute(em, FACTS, replace(config, layers="auto", alpha="auto"), cache=Cache(tmp_path))
    assert edit.trace is not None
    assert edit.layers == default_layers(em.num_layers, config)
    attention, mlp = (
        [max(edit.trace.ie_prob[kind][layer], 0.0) for layer in edit.layers] for kind in ("attention", "mlp")
    )
    share = sum(attention) / (sum(attention) + sum(mlp))
    assert edit.alpha == pytest.approx(dict.fromkeys(edit.layers, min(share, MOST_TRACED)))


@pytest.mark.parametrize("options", [{"layers": "9"}, {"layers": "x"}, {"alpha": "2"}])
def test_options_that_do_not_fit_the_model_are_refused(
    options: dict[str, Any], editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        compute(editable(), FACTS, replace(config, **options), cache=Cache(tmp_path))


def report(**different: float) -> dict[Site, SiteReport]:
    values = {"lam": 1.0, "drift": 0.1, "reached": 0.5, "norm": 1.0, "weight_norm": 10.0, **different}
    return {Site(1, "mlp"): SiteReport(**values)}


def test_a_sound_edit_is_no_collapse() -> None:
    check_collapse(report(), 2.0, 2.1)
    check_collapse(report(), 2.0, 1.0)
    check_collapse({}, 2.0, 2.0)


@pytest.mark.parametrize(
    ("reports", "before", "after", "words"),
    [
        (report(norm=math.nan), 2.0, 2.0, "not finite"),
        (report(norm=math.inf), 2.0, 2.0, "not finite"),
        (report(drift=1.5), 2.0, 2.0, "relative drift 1.5"),
        (report(), 2.0, 3.0, "no longer predicts"),
        (report(), 2.0, math.nan, "no longer predicts"),
        (report(), 2.0, math.inf, "no longer predicts"),
        (report(), math.nan, 2.0, "no longer predicts"),
    ],
)
def test_a_collapse_is_explained(
    reports: dict[Site, SiteReport], before: float, after: float, words: str
) -> None:
    with pytest.raises(CollapseError, match=words) as caught:
        check_collapse(reports, before, after)
    assert "--" in caught.value.hint


def test_a_collapse_beyond_what_a_float_holds_is_explained() -> None:
    with pytest.raises(CollapseError):
        check_collapse(report(), 2.0, 800.0)


def test_a_drift_that_is_no_number_is_a_collapse() -> None:
    with pytest.raises(CollapseError):
        check_collapse(report(drift=math.nan), 2.0, 2.0)


SITE = Site(1, "mlp")


class Heard(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def on_top(
    em: EditableModel, config: EditConfig, folder: Path, older: float, own: float
) -> tuple[Edit, Heard]:
    """An edit on an older patch, each of them a share of the edited weight: a drift of its square."""
    config, cache, said = replace(config, layers="1", alpha="0"), Cache(folder), Heard()
    weight = em.weight(SITE).float()
    parts = [{SITE: LowRank(share * torch.eye(len(weight)), weight.clone())} for share in (older, own)]
    baseline = measure(em, FACTS[:1], config, cache, Silent(), Clock())
    batch = EditBatch(em, FACTS[:1], config, baseline, cache, said, Clock())
    return _on(parts[:1], Edit(parts[1], (1,), {}, report(), None, None, 10.0, 10.0), batch), said


def test_an_older_patch_that_drifts_too_far_by_itself_stops_no_edit(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    edit, said = on_top(editable(), config, tmp_path, 1.2, 0.1)
    assert edit.whole[SITE].drift == pytest.approx(1.69, rel=1e-4)
    assert said.messages == [f"the older patch already drifts 1.44 at site {SITE}"]


def test_two_parts_that_drift_too_far_together_are_named_both(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    with pytest.raises(CollapseError, match=rf"site {SITE} together with the older patch .* drift 1.44"):
        on_top(editable(), config, tmp_path, 0.6, 0.6)
    edit, said = on_top(editable(), config, tmp_path, 0.6, 0.3)
    assert edit.whole[SITE].drift == pytest.approx(0.81, rel=1e-4) and not said.messages
