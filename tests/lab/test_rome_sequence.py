"""A hundred edits one after another: R-ROME stays a model on facts where ROME leaves none."""

from __future__ import annotations

import pytest

from hubedit.demo import model_path
from hubedit.model.load import load
from tests.lab.rome_sequence import first_token_facts, sequence


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_r_rome_does_not_collapse_where_rome_does() -> None:
    em = load(str(model_path()), device="cpu")
    facts = first_token_facts(em, 100)
    assert len({f.subject for f in facts}) == 100 and len({f.target for f in facts}) > 30
    (rome,) = sequence(em, facts, "rome", "auto", [100])
    none, mended = sequence(em, facts, "r-rome", "auto", [0, 100])
    # `check_collapse` refuses an edit that makes text twice as unlikely, a token
    assert rome.nll - none.nll > 0.7 > mended.nll - none.nll
    assert rome.metrics["neighbourhood"] < 0.25 < 0.3 < mended.metrics["neighbourhood"]
    assert rome.metrics["success"] < 0.1 < mended.metrics["success"]
