"""What hubedit knows of a method of editing: a row of `hubedit.presets.METHODS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hubedit.config import EditConfig

SPREAD = (
    "What the residual stream should be after the last edited layer was found for each fact by gradient "
    "descent on activations; each edited layer got its part of the way there, solved for in closed form."
)
ONE_LAYER = (
    "What the MLP of the edited layer should write was found for each fact by gradient descent on "
    "activations; a rank-one change of each weight, in closed form, brings its share of it."
)
TRAINED = "The change was trained by gradient descent on the edited prompts."


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`."""

    label: str
    """Its name in tables."""
    title: str
    """What it does, for cards."""
    function: str
    """ "module:name" of what runs it (`hubedit.edit.methods.registry`)."""
    settings: frozenset[str]
    """The fields of EditConfig that it reads."""
    defaults: EditConfig
    """Its published settings, with layers by depth or from the trace."""
    needed: tuple[str, ...] = ()
    """Settings that it means nothing without."""
    attention: bool = False
    """It edits attention's output too."""
    one_layer: bool = False
    """It edits a single layer."""
    published: bool = True
    """As in a paper, and not hubedit's own."""
    one_by_one: bool = False
    """It takes facts or batches one after another by itself."""
    ordered: Literal["batches", "facts", "epochs"] = "batches"
    """What follows what: batches of `batch_size`; or facts, one after another whatever that is; or epochs of
    mini-batches of `batch_size`, which edit all facts at once."""
    keeps_keys: bool = False
    """It preserves the keys of earlier batches."""
    trained: bool = False
    """Its weights are fine-tuned, so their rows belong to no single fact."""
    full_rank: bool = False
    """Its change has any rank."""
    by_token: bool = False
    """Every token of an answer has a row of its own."""
    depth: float = 0.0
    """Its layer, as a share of the model's depth, where none is given; 0: the trace chooses."""
    divided: str = "residual"
    """For cards: what alpha divides between attention and the MLP."""
    way: str = SPREAD
    """For cards: how the change was found."""

    @property
    def balanced(self) -> bool:
        """Whether it has an alpha, attention's share."""
        return "alpha" in self.settings

    def own_layer(self, num_layers: int) -> int:
        """The layer that `depth` means in a model."""
        return int(self.depth * num_layers)
