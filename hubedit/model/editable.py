"""A loaded model with its tokenizer, and the parts of it that an edit touches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hubedit.model.chat import Chat
from hubedit.model.families import Family
from hubedit.model.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, eq=False)
class EditableModel:
    """A model in evaluation mode with gradients off. Nothing in the library changes its weights.

    `ref`: as the user gave it, without `@revision`; `commit`: 40 hexadecimal digits, or "" for a local
    folder; `path`: the folder the files lie in; `identity`: what caches key on: the commit, or for a
    local folder the sha256 over its config.json and weight files; `shared`: every process of the run holds
    the same model (`hubedit.parallel.hold`); `chat`: prompts are put to it in this chat template (None: as
    they are written).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    family: Family
    ref: str
    commit: str
    path: Path
    identity: str
    shared: bool = False
    chat: Chat | None = None

    @property
    def device(self) -> torch.device:
        """Where the embeddings are computed: where the whole model lies, unless it is spread or offloaded."""
        home = self.embeddings().get_parameter("weight").device
        # accelerate brings offloaded weights in for each call
        hook: Any = getattr(self.embeddings(), "_hf_hook", None)
        return home if hook is None or home.type != "meta" else torch.device(hook.execution_device)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the model computes in."""
        return next(self.model.parameters()).dtype

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width d of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int:
        """Longest sequence the model was built for, in tokens."""
        return int(self.model.config.max_position_embeddings)

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
        weight = dict(present(self.site(site)))["weight"]
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

        Applies the final norm, the head, and the soft-capping of the families that have it.
        """
        normed = self.model.get_submodule(self.family.final_norm)(hidden.to(self.dtype))
        if entries is None:
            logits = self.head()(normed)
        else:
            own = dict(present(self.head()))
            bias = own["bias"][entries] if "bias" in own else None
            logits = torch.nn.functional.linear(normed, own["weight"][entries], bias)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        assert isinstance(logits, Tensor)
        return logits.to(hidden.device)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every parameter, tied ones once; offloaded ones are brought in one at a time."""
        seen: set[int] = set()
        for name, module in self.model.named_modules():
            for leaf, own in module.named_parameters(recurse=False):
                if id(own) not in seen:
                    seen.add(id(own))
                    value = own if own.device.type != "meta" else dict(present(module))[leaf]
                    yield f"{name}.{leaf}" if name else leaf, value

    def weights_hash(self) -> str:
        """sha256 (hex) over every parameter: name, type, shape and bytes. Tied weights count once."""
        total = hashlib.sha256()
        for name, parameter in self.parameters():
            total.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
            flat = parameter.detach().cpu().contiguous().flatten()
            total.update(flat.view(torch.uint8).numpy().data)
        return total.hexdigest()


def present(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters with their values, also where accelerate keeps them elsewhere."""
    hook: Any = getattr(module, "_hf_hook", None)
    for name, own in module.named_parameters(recurse=False):
        yield name, own if own.device.type != "meta" or hook is None else hook.weights_map[name]
