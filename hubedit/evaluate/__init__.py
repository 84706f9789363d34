"""Measuring what an edit did."""

from hubedit.evaluate.edits import EditReport, Outcome, Reading, compare, read

__all__ = ["EditReport", "Outcome", "Reading", "compare", "read"]
