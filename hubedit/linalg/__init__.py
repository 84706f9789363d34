"""Linear algebra of editing: torch only, no transformers, no files."""

from hubedit.linalg.lowrank import LowRank
from hubedit.linalg.moments import Moments, SecondMoment
from hubedit.linalg.solve import KeySpace, Preserved, output_power

__all__ = ["KeySpace", "LowRank", "Moments", "Preserved", "SecondMoment", "output_power"]
