"""From a trace to alpha."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.edit.locate.alpha import MOST_TRACED, alphas
from hubedit.errors import ConfigError

EFFECTS = st.lists(st.floats(-1, 1), min_size=2, max_size=40)


def test_alpha_is_attentions_share_of_the_positive_effects() -> None:
    attention, mlp = [0.1, 0.2, -0.5, 0.0], [0.3, 0.2, 0.1, -0.1]
    assert alphas(attention, mlp, (0, 1, 2), "auto") == pytest.approx(dict.fromkeys((0, 1, 2), 0.3 / 0.9))
    assert alphas(attention, mlp, (0, 1, 2), "per-layer") == pytest.approx({0: 0.25, 1: 0.5, 2: 0.0})
    assert alphas(attention, mlp, (3,), "auto") == {3: 0.0}


@pytest.mark.parametrize("setting", ["auto", "per-layer"])
def test_a_trace_never_leaves_the_mlp_out(setting: str) -> None:
    """Attention alone does not bring every fact; a layer whose MLP shows no effect is no reason to try."""
    assert alphas([0.1, 0.3], [-0.1, 0.0], (0, 1), setting) == {0: MOST_TRACED, 1: MOST_TRACED}


@pytest.mark.parametrize(("setting", "value"), [("0", 0.0), ("0.3", 0.3), ("1", 1.0), ("1e-2", 0.01)])
def test_alpha_may_be_a_number(setting: str, value: float) -> None:
    assert alphas([], [], (4, 5), setting) == {4: value, 5: value}


@pytest.mark.parametrize("setting", ["-0.1", "1.1", "x", "", "nan", "inf"])
def test_other_alphas_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="share"):
        alphas([], [], (4,), setting)


@given(EFFECTS, st.data())
def test_alpha_is_a_share_whatever_the_trace(attention: list[float], data: st.DataObject) -> None:
    n = len(attention)
    mlp = data.draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))
    layers = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    for setting in ("auto", "per-layer"):
        found = alphas(attention, mlp, layers, setting)
        assert list(found) == layers
        assert all(0 <= value <= 1 for value in found.values())
    scaled = alphas([a * 3 for a in attention], [m * 3 for m in mlp], layers, "auto")
    assert scaled == pytest.approx(alphas(attention, mlp, layers, "auto"), abs=1e-9)
