"""Facts: the types, and reading them from every format the field uses."""

from hubedit.facts.dump import dump_facts, from_record, to_record
from hubedit.facts.line import typed_facts
from hubedit.facts.load import LoadedFacts, OnConflict, load_facts
from hubedit.facts.schemas import FORMATS
from hubedit.facts.tokens import check_tokens
from hubedit.facts.types import Fact, Probe

__all__ = [
    "FORMATS",
    "Fact",
    "LoadedFacts",
    "OnConflict",
    "Probe",
    "check_tokens",
    "dump_facts",
    "from_record",
    "load_facts",
    "to_record",
    "typed_facts",
]
