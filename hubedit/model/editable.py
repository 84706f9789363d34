"""A loaded model with its tokenizer, and the parts of it that an edit touches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hubedit.errors import PatchError, kind
from hubedit.linalg import LowRank
from hubedit.model.chat import Chat
from hubedit.model.families import Family
from hubedit.model.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


@runtime_checkable
class Change(Protocol):
    """A patch: factors for the models whose weights it was made for."""

    def checked(self, em: EditableModel) -> Mapping[Site, LowRank]:
        """The factors by site. Raises PatchError for another model."""


@dataclass(frozen=True, eq=False)
class EditableModel:
    """A model in evaluation mode with gradients off. Nothing in the library changes its weights; `with_patch`
    gives a model that computes with other ones.

    `ref`: as the user gave it, without `@revision`; `commit`: 40 hexadecimal digits, or "" for a local
    folder; `path`: the folder the files lie in; `weights`: what identifies them: the commit, or for a
    local folder the sha256 over its config.json and weight files; `shared`: every process of the run holds
    the same model (`hubedit.parallel.hold`); `patches`: the changes in effect, one after the other; `chat`:
    prompts are put to it in this chat template (None: as they are written).
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerFast = field(repr=False)
    family: Family = field(repr=False)
    ref: str
    commit: str
    path: Path
    weights: str
    shared: bool = False
    patches: tuple[Mapping[Site, LowRank], ...] = field(default=(), repr=False)
    chat: Chat | None = None

    def with_patch(self, patch: Change | Mapping[Site, LowRank]) -> EditableModel:
        """The model that computes as if each site's weight were W + B A, on top of the changes that are in
        effect. The weights themselves are shared and stay untouched.

        Raises PatchError for a `hubedit.Patch` that was made for other weights, and for what is no patch.
        """
        if not isinstance(patch, (Mapping, Change)):
            raise PatchError(
                f"with_patch takes a hubedit.Patch, and this is {kind(patch)}",
                "hubedit.Patch.load(folder) reads one; several are added: one + two",
            )
        factors = patch if isinstance(patch, Mapping) else patch.checked(self)
        if not factors:
            return self
        # of a long stack the factors can be wider than the matrix, and would cost more at every token
        moved = {site: factor.compress().to(self.device) for site, factor in factors.items()}
        return replace(self, patches=(*self.patches, moved))

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """The transformers model, which inside computes with the changes in effect: for code that calls it
        directly. What hubedit does with an `EditableModel` needs none of it.

        Each product is formed in float32 (or wider) and cast to the output's type, before any other hook.
        """
        handles = []
        try:
            for site in sorted({site for factors in self.patches for site in factors}):
                own = [factors[site] for factors in self.patches if site in factors]
                handles.append(self.site(site).register_forward_hook(_adder(own), prepend=True))
            yield self.model
        finally:
            for handle in handles:
                handle.remove()

    @property
    def unpatched(self) -> EditableModel:
        """The model without any change."""
        return replace(self, patches=())

    @property
    def change(self) -> dict[Site, LowRank]:
        """The sum of the changes in effect."""
        total: dict[Site, LowRank] = {}
        for factors in self.patches:
            for site, factor in factors.items():
                total[site] = total[site] + factor if site in total else factor
        return total

    @cached_property
    def identity(self) -> str:
        """What caches key on: the weights, and every change in effect."""
        if not self.patches:
            return self.weights
        parts = hashlib.sha256()
        for factors in self.patches:
            parts.update("".join(f"{site} {factors[site].digest()}\n" for site in sorted(factors)).encode())
            parts.update(b"\n")
        return f"{self.weights}+{parts.hexdigest()[:16]}"

    @property
    def device(self) -> torch.device:
        """Where the embeddings are computed: where the whole model lies, unless it is spread or offloaded."""
        home = self.embeddings().get_parameter("weight").device
        spread: Any = getattr(self.model, "hf_device_map", None)
        if home.type != "meta" or spread is None:  # without one it has no weights at all
            return home
        # accelerate brings offloaded weights in for each call, to the first device that holds any
        places = [place for place in spread.values() if place not in ("cpu", "disk")]
        return torch.device(places[0] if places else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the model computes in."""
        return next(self.model.parameters()).dtype

    @property
    def text_config(self) -> PreTrainedConfig:
        """The configuration of the language model: the model's own, unless that has other parts too."""
        return self.model.config.get_text_config()

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return int(self.text_config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width d of the residual stream."""
        return int(self.text_config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self.text_config.vocab_size)

    @property
    def max_positions(self) -> int:
        """Longest sequence the model was built for, in tokens."""
        return int(self.text_config.max_position_embeddings)

    @property
    def residual_multiplier(self) -> float:
        """What the residual stream adds of what a site writes: 1, or Granite's own."""
        return float(getattr(self.text_config, "residual_multiplier", 1))

    @property
    def has_bos(self) -> bool:
        """Whether the tokenizer puts a beginning-of-text token before every text."""
        ids = self.tokenizer("a")["input_ids"]
        return self.tokenizer.bos_token_id is not None and ids[0] == self.tokenizer.bos_token_id

    @property
    def pad_id(self) -> int:
        """An id for padding; padded positions are always masked, so any id serves where none is defined."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a text: the tokenizer's and those of the model's generation settings, sorted."""
        found: set[int] = set()
        settings = self.model.generation_config
        for value in (self.tokenizer.eos_token_id, settings.eos_token_id if settings is not None else None):
            if value is not None:
                found |= {int(v) for v in (value if isinstance(value, list) else [value])}
        return tuple(sorted(found))

    def block(self, layer: int) -> nn.Module:
        """The transformer block of a layer (0-based)."""
        return self.model.get_submodule(self.family.block_name(layer))

    def mlp(self, layer: int) -> nn.Module:
        """The MLP of a layer's block: (b, t, d) -> (b, t, d)."""
        return self.model.get_submodule(self.family.mlp_name(layer))

    def module_name(self, site: Site) -> str:
        """Full module path of a site, as `named_modules` and PEFT name it."""
        return self.family.site_name(site)

    def site(self, site: Site) -> nn.Module:
        """The site's module: a Linear, or GPT-2's Conv1D."""
        return self.model.get_submodule(self.module_name(site))

    def sites(self) -> tuple[Site, ...]:
        """Every site, in the order data flows: a layer's attention, then its MLP."""
        return tuple(
            site
            for layer in range(self.num_layers)
            for site in (Site(layer, "attention"), Site(layer, "mlp"))
        )

    def weight(self, site: Site) -> Tensor:
        """The site's weight as a view (d_out, d_in), whatever layout the family stores."""
        weight = present(self.site(site))["weight"]
        return weight.T if self.family.conv1d else weight

    def d_in(self, site: Site) -> int:
        """Width of the site's input."""
        shape = self.site(site).get_parameter("weight").shape
        return int(shape[0 if self.family.conv1d else 1])

    def embeddings(self) -> nn.Module:
        """The token embeddings: ids (b, t) -> (b, t, d)."""
        return self.model.get_submodule(self.family.embeddings)

    def head(self) -> nn.Module:
        """The unembedding: (..., d) -> (..., vocabulary). Its name differs between versions of transformers
        (GPT-NeoX), so the model is asked for it."""
        model: Any = self.model  # whose method has no annotations
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise AttributeError("it has no output embeddings")
        return head

    def head_logits(self, hidden: Tensor, entries: Tensor | None = None) -> Tensor:
        """Logits (..., vocabulary) of the residual stream (..., d) after the last block, or (..., c) those of
        some `entries` (c,) of the vocabulary.

        Applies the final norm, the head, and the soft-capping or scaling of the families that have it.
        """
        normed = self.model.get_submodule(self.family.final_norm)(hidden.to(self.dtype))
        if entries is None:
            logits = self.head()(normed)
        else:
            own = present(self.head())
            bias = own["bias"][entries] if "bias" in own else None
            logits = torch.nn.functional.linear(normed, own["weight"][entries], bias)
        logits = logits / getattr(self.text_config, "logits_scaling", 1)
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        assert isinstance(logits, Tensor)
        return logits.to(hidden.device)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every parameter, tied ones once; offloaded ones are brought in one at a time."""
        for name, own in self.model.named_parameters():
            module, _, leaf = name.rpartition(".")
            offloaded = own.device.type == "meta"
            yield name, present(self.model.get_submodule(module))[leaf] if offloaded else own

    def checksum(self) -> tuple[int, ...]:
        """One number a parameter, from its bits, computed where it lies: cheap on a GPU too."""
        kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        return tuple(
            int(p.detach().view(kinds[p.element_size()]).sum(dtype=torch.int64)) for _, p in self.parameters()
        )

    def weights_hash(self) -> str:
        """sha256 (hex) over every parameter: name, type, shape and bytes. Tied weights count once."""
        total = hashlib.sha256()
        for name, parameter in self.parameters():
            total.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
            flat = parameter.detach().cpu().contiguous().flatten()
            total.update(flat.view(torch.uint8).numpy().data)
        return total.hexdigest()


def _adder(factors: Sequence[LowRank]) -> Callable[..., Tensor]:
    """The hook that adds x (B A)^T of each of the factors to a site's output."""

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        wide = torch.promote_types(args[0].dtype, torch.float32)
        x = args[0].to(wide)
        for factor in factors:
            output = (output.to(wide) + factor.to(x.device, wide).apply(x)).to(output.dtype)
        return output

    return add


def present(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters with their values, also where accelerate keeps them elsewhere."""
    own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    if all(value.device.type != "meta" for value in own.values()):
        return own
    align: Any = import_module("accelerate.utils").align_module_device
    with align(module):
        return {name: value.detach() for name, value in module.named_parameters(recurse=False)}
