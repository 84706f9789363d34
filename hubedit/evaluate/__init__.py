"""Measuring what an edit did."""

from hubedit.evaluate.edits import Case, EditReport, Outcome, answered, compare
from hubedit.evaluate.reading import Reading, read
from hubedit.verb import callable_as

__all__ = ["Case", "EditReport", "Outcome", "Reading", "answered", "compare", "read"]

callable_as(__name__, "hubedit.api.editing:evaluate")
