"""Measuring what an edit did."""

from hubedit.evaluate.edits import Case, EditReport, Outcome, answered, compare
from hubedit.evaluate.reading import Reading, read

__all__ = ["Case", "EditReport", "Outcome", "Reading", "answered", "compare", "read"]
