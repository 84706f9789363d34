"""Locate, optimise, solve, verify: from facts to low-rank factors."""

from hubedit.verb import callable_as

callable_as(__name__, "hubedit.api.editing:edit")
