"""The Hub: the only code that writes to it, and what reads patches from it."""

from hubedit.hub.pull import patch_folder, pull
from hubedit.hub.push import Pushed, Where, check_target, push_patch

__all__ = ["Pushed", "Where", "check_target", "patch_folder", "pull", "push_patch"]
