"""Which function runs a method; what each method is and reads is in `hubedit.presets.METHODS`."""

from __future__ import annotations

from collections.abc import Callable

from hubedit.edit.methods.alphaedit import alphaedit
from hubedit.edit.methods.emmet import emmet
from hubedit.edit.methods.lora import lora
from hubedit.edit.methods.memit import memit
from hubedit.edit.methods.rome import intattn_rome, r_rome, rome
from hubedit.edit.result import Edit
from hubedit.edit.stages import Job

RUNS: dict[str, Callable[[Job], Edit]] = {
    "memit": memit,
    "rome": rome,
    "r-rome": r_rome,
    "intattn-rome": intattn_rome,
    "alphaedit": alphaedit,
    "emmet": emmet,
    "lora": lora,
}
"""The published methods; "joint", the joint one, is `hubedit.edit.compute.joint`."""
