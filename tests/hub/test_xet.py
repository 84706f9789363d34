"""The same with Xet storage: the stock hf_xet wheel, its chunks and its deduplication."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from hubedit.model.editable import EditableModel
from tests.hub.conftest import write_patch
from tests.hub.loopback import serve

CODE = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from hubedit.hub import Where
from hubedit.hub.revert import revert_repo
from hubedit.hub.send import send

base, patch = Path(sys.argv[1]), Path(sys.argv[2])
api = HfApi()
api.create_repo("lab/xet")
commit = api.upload_folder(repo_id="lab/xet", folder_path=base).oid
import json
for name in ("adapter_config.json", "hubedit.json"):
    text = (patch / name).read_text().replace("f" * 40, commit)
    (patch / name).write_text(text)
send(patch, Where("patched"))
done = send(patch, Where("merged"), merged=True)
assert done.created, done
again = send(patch, Where("merged"), merged=True)
assert not again.created
back = revert_repo(Where("merged"))
assert back.created and not back.uploaded, back
ours = {f.path: f.blob_id for f in api.list_repo_tree("ada/merged") if hasattr(f, "blob_id")}
theirs = {f.path: f.blob_id for f in api.list_repo_tree("lab/xet") if hasattr(f, "blob_id")}
assert ours == theirs
print("done")
"""


@pytest.mark.skipif(importlib.util.find_spec("hf_xet") is None, reason="hf_xet is not installed")
def test_push_merge_and_revert_over_xet(
    pico_path: Callable[..., Path], editable: Callable[..., EditableModel], tmp_path: Path
) -> None:
    patch = write_patch(editable(), tmp_path / "patch", "lab/xet", "f" * 40)
    with serve(tmp_path / "hub", xet=True) as hub:
        ran = hub.python(CODE, tmp_path / "home", str(pico_path()), str(patch))
        assert ran.returncode == 0 and "done" in ran.stdout, ran.stderr[-3000:]
        # nothing large went over plain HTTP
        assert not [line for line in hub.log() if line["method"] == "PUT"]
