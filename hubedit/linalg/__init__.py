"""Linear algebra of editing: torch only, no transformers, no files."""

from hubedit.linalg.least_squares import ridge_rows, right_factor
from hubedit.linalg.lowrank import LowRank
from hubedit.linalg.moments import Moments, SecondMoment, mean_of
from hubedit.linalg.null_space import Threshold, null_space
from hubedit.linalg.rank_one import direction, rank_one
from hubedit.linalg.running import RunningScale
from hubedit.linalg.solve import KeySpace, Preserved, output_drift, output_power

__all__ = [
    "KeySpace",
    "LowRank",
    "Moments",
    "Preserved",
    "RunningScale",
    "SecondMoment",
    "Threshold",
    "direction",
    "mean_of",
    "null_space",
    "output_drift",
    "output_power",
    "rank_one",
    "ridge_rows",
    "right_factor",
]
