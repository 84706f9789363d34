"""Finding the settings for a model that nobody has a preset for, by trial edits of facts that it knows."""

from hubedit.tune.bank import Candidate, bank, candidates
from hubedit.tune.budget import parse_budget
from hubedit.tune.cases import Cases, prepare_cases
from hubedit.tune.front import Tried, Tuned
from hubedit.tune.outcome import check_out, write
from hubedit.tune.space import Point, Space
from hubedit.tune.study import tune

__all__ = [
    "Candidate",
    "Cases",
    "Point",
    "Space",
    "Tried",
    "Tuned",
    "bank",
    "candidates",
    "check_out",
    "parse_budget",
    "prepare_cases",
    "tune",
    "write",
]
