"""Options that are one of a few words."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How the update is found."""

    joint = "joint"
    intattn = "intattn"
    memit = "memit"
    rome = "rome"
    r_rome = "r-rome"
    intattn_rome = "intattn-rome"
    alphaedit = "alphaedit"
    emmet = "emmet"
    lora = "lora"
    ft = "ft"
    ultraedit = "ultraedit"


class Prefer(StrEnum):
    """Which end of the frontier between success and locality."""

    success = "success"
    balanced = "balanced"
    locality = "locality"
