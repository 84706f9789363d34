"""A model without weights gets enough of them to be timed: speed does not depend on the numbers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hubedit.model.editable import EditableModel

_NUMBER = 0.01  # not zero: pages of zeros are read faster than memory is


def stand_in(em: EditableModel, device: torch.device, kind: torch.dtype) -> EditableModel:
    """`em`, whose parameters are on the "meta" device, with made-up ones in the first block and in everything
    that is not a block, as `hubedit.cost.speed.measure` needs; in place. The others stay where they are."""
    later = tuple(f"{em.family.block_name(layer)}." for layer in range(1, em.num_layers))
    made: dict[nn.Parameter, nn.Parameter] = {}
    embeddings = em.embeddings()

    def real(value: Tensor, wanted: torch.dtype, number: float) -> Tensor:
        if number == 0.0:
            return torch.zeros(value.shape, dtype=wanted, device=device)
        return torch.full(value.shape, number, dtype=wanted, device=device)

    head = em.head().get_parameter("weight")
    with torch.no_grad():
        for name, module in em.model.named_modules():
            if f"{name}.".startswith(later):
                continue
            for key, own in module.named_parameters(recurse=False):
                # the embeddings are not read, and empty pages take no memory
                number = 0.0 if module is embeddings and own is not head else _NUMBER
                if own not in made:
                    made[own] = nn.Parameter(real(own, kind, number), requires_grad=False)
                module.register_parameter(key, made[own])
            for key, buffer in module.named_buffers(recurse=False):
                wanted = buffer.dtype if not buffer.is_floating_point() else torch.float32
                module.register_buffer(key, real(buffer, wanted, 0.0), persistent=False)
    return replace(em)
