"""What is asked can be kept and read again."""

from __future__ import annotations

import json

from hubedit.edit.asked import Asked
from hubedit.edit.probes import Probes
from hubedit.edit.rows import OTHER, Row


def test_it_is_the_same_after_a_stay_in_the_cache() -> None:
    rows = (Row(0, (5, 6, 7), 1, (8,)), Row(1, (5, 9), 0, (3, 4)))
    told, kept = (Row(0, (2, 6), 1, (8,)),), (Row(1, (5, 1), 0, (2,), preserve=True),)
    near, generic = (Row(OTHER, (4, 1), 0, (2,), preserve=True),), (Row(0, (6,), 0, (0,), preserve=True),)
    asked = Asked(rows, told, kept, generic, near, Probes((*rows, *told), kept, near, ((1, 2), (3,)), 4.0))
    assert Asked.from_json(json.loads(json.dumps(asked.to_json()))) == asked
