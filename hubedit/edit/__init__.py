"""Locate, optimise, solve, verify: from facts to low-rank factors."""
