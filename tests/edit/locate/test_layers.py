"""The layers as the user writes them, and those that stand at a share of the depth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.config import EditConfig
from hubedit.edit.locate.layers import default_layers, parse_layers
from hubedit.errors import ConfigError
from hubedit.presets import method_defaults


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("4-8", (4, 5, 6, 7, 8)),
        ("4,6,8", (4, 6, 8)),
        ("8, 4", (4, 8)),
        ("3", (3,)),
        ("3-3", (3,)),
        ("2-4,3-5,9", (2, 3, 4, 5, 9)),
        ("0", (0,)),
    ],
)
def test_layers_are_read(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, 10) == layers


@pytest.mark.parametrize(
    "text", ["", "a", "4-", "-4", "4--8", "4;6", "4,,6", "8-4", "10", "4-10", "1.5", "auto"]
)
def test_what_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layers(text, 10)
    assert caught.value.hint


def test_a_huge_range_is_refused_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match="outside the model"):
        parse_layers("0-999999999999", 10)


@given(st.sets(st.integers(0, 30), min_size=1))
def test_layers_written_out_are_read_back(layers: set[int]) -> None:
    assert parse_layers(",".join(map(str, layers)), 31) == tuple(sorted(layers))


@pytest.mark.parametrize(
    ("num_layers", "layers"),
    [(30, (3, 4, 5, 6, 7)), (18, (1, 2, 3, 4)), (4, (0, 1)), (2, (0,)), (80, (8, 10, 12, 14, 16, 18))],
)
def test_the_joint_edit_writes_early_layers(num_layers: int, layers: tuple[int, ...]) -> None:
    assert default_layers(num_layers, EditConfig()) == layers


@pytest.mark.parametrize(("num_layers", "layers"), [(32, (4, 5, 6, 7, 8)), (4, (0, 1)), (2, (0,))])
def test_published_methods_write_all_layers_between(num_layers: int, layers: tuple[int, ...]) -> None:
    assert default_layers(num_layers, method_defaults("memit")) == layers


@given(st.integers(2, 200), st.integers(0, 9), st.floats(0, 1), st.floats(0, 1))
def test_layers_stand_within_the_depths(num_layers: int, most: int, one: float, other: float) -> None:
    depths = (min(one, other), max(one, other))
    found = default_layers(num_layers, EditConfig(depths=depths, most_layers=most))
    first, last = (
        min(n, num_layers - 2) for n in (int(depths[0] * num_layers), round(depths[1] * num_layers))
    )
    assert list(found) == sorted(set(found)) and found[0] == first
    assert found[-1] == last or most == 1
    assert len(found) == (min(last - first + 1, most) if most else last - first + 1)
