"""kill -9 at any moment: a folder is the old model or the new one, and running again completes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.revert import prepare, revert
from hubedit.errors import ConfigError
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny
from tests.killing import Moments, duration, killed

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9"),
    # the children only read and write files
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
MOMENTS = 100


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; syncing guards against a power cut, and takes long."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.slow
def test_a_merge_that_is_killed_leaves_nothing_or_everything(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    before = content(base)
    patches = [patch(base, 1), patch(base, 2, MODULES[:1])]
    out = tmp_path / "out"
    duration(lambda: merge(patches, local(base), out))
    shutil.rmtree(out)
    longest = duration(lambda: merge(patches, local(base), tmp_path / "first"))
    whole = content(tmp_path / "first")
    moments = Moments(0, longest, MOMENTS)
    while moments.more():
        moments.tell(killed(lambda: merge(patches, local(base), out), moments.next()))
        assert content(base) == before
        if out.exists():
            assert content(out) == whole
            with pytest.raises(ConfigError, match="exists already"):
                merge(patches, local(base), out)
        else:
            merge(patches, local(base), out)
            assert content(out) == whole
        assert sorted(os.listdir(tmp_path)) == ["first", "m", "out"]
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_revert_that_is_killed_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    patches = [patch(base, 1), patch(base, 2, MODULES[:2])]
    out = tmp_path / "out"
    merge(patches, local(base), out)
    shutil.copytree(out, tmp_path / "kept")
    both = content(out)
    revert(out, last=True)
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "kept", out)
    longest = duration(lambda: revert(out, last=True))
    one = content(out)
    assert one != both
    moments, seen = Moments(1, longest, MOMENTS), set()
    while moments.more():
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "kept", out)
        moments.tell(killed(lambda: revert(out, last=True), moments.next()))
        found = content(out)
        assert found in (both, one)
        seen.add(found == one)
        if found == both:
            revert(out, last=True)
        else:
            prepare(out, last=True)
        # the next run also removes what the killed one left
        assert content(out) == one
        assert sorted(os.listdir(tmp_path)) == ["kept", "m", "out"]
    revert(out, everything=True)
    assert content(out) == content(base)
    assert seen == {False, True}
