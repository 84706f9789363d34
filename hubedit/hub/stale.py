"""Files of a model's repository that an earlier push left and that must go with a new one."""

from __future__ import annotations

import re
from collections.abc import Collection

from hubedit.hub.changes import Tree

_MODEL = re.compile(
    r"patches/.*|originals/.*|report\.(json|html)|plots/[\w-]+\.png|\.eval_results/[\w-]+\.ya?ml|"
    r"[^/]+\.safetensors|[^/]*\.safetensors\.index\.json"
)


def model_stale(wanted: Collection[str], tree: Tree, more: Collection[str] = ()) -> list[str]:
    """Paths of what hubedit writes, and of weights, that are neither in `wanted` nor in `more`."""
    return [path for path in tree if _MODEL.fullmatch(path) and path not in wanted and path not in more]
