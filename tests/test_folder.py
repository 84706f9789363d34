"""A file that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubedit.folder import write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    other.write_bytes(b"other")
    file.symlink_to(other)
    write_file(file, b"one")
    assert file.read_bytes() == b"one" and not file.is_symlink() and other.read_bytes() == b"other"
    write_file(file, lambda part: part.write_bytes(b"two"))
    assert file.read_bytes() == b"two" and len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    write_file(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patched:
            patched.setattr(name, full)
            with pytest.raises(OSError, match="No space"):
                write_file(file, b"new")
        assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
