"""Measuring what an edit did."""

from hubedit.evaluate.edits import Case, EditReport, Outcome, Reading, answered, compare, read

__all__ = ["Case", "EditReport", "Outcome", "Reading", "answered", "compare", "read"]
