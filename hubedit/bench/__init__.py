"""Many edits, measured alike: from one configuration to one results file, and from there to tables."""

from hubedit.bench.configuration import Bench, read_bench
from hubedit.bench.ready import ready, ready_names

__all__ = ["Bench", "read_bench", "ready", "ready_names"]
