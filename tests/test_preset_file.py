"""Preset files: what they set, what they may not set, and how `apply --preset` finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubedit.cli.settings import chosen_on, settings
from hubedit.config import EditConfig
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.preset_file import load_preset, prompt_digest
from hubedit.presets import PRESETS, preset

TEXT = """
format = 1
[model]
ref = "some/model"
[settings]
layers = "1-2"
alpha = "0.1"
rank = 5
lam = 1
[settings.targets]
kl = 0.5
[prefer.locality]
lam = 90
[prefer.locality.targets]
kl = 2.0
"""


def written(folder: Path, text: str = TEXT) -> str:
    path = folder / "preset.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_and_its_folder_give_the_settings(tmp_path: Path) -> None:
    name = written(tmp_path)
    config = preset(name)
    assert (config.layers, config.alpha, config.rank, config.lam) == ("1-2", "0.1", 5, 1)
    assert config.targets.kl == 0.5
    # what the file does not name is as without it
    assert (config.seed, config.targets.steps) == (EditConfig().seed, EditConfig().targets.steps)
    assert preset(str(tmp_path)) == config


def test_an_edit_of_the_facts_that_chose_the_preset_is_known(tmp_path: Path) -> None:
    digests = [prompt_digest(prompt) for prompt in ("Peru is in", "Who won?", "日本は")]
    ref = written(tmp_path, f"{TEXT}[tuned]\ntrials = 3\nseen = {digests}\n")
    assert not any("Peru" in digest for digest in digests)
    told = load_preset(ref).chosen_on(["Peru is in", "Chile is in", "日本は"])
    assert "trial edits of 2 of these 3 facts" in told
    assert chosen_on(ref, [Fact("Who won?", "Who", "Peru")])
    assert not chosen_on(ref, [Fact("Peru was in", "Peru", "Asia")])
    assert not chosen_on(None, []) and not chosen_on("qwen2.5-7b", [Fact("Who won?", "Who", "Peru")])
    assert not load_preset(written(tmp_path)).chosen_on(["Peru is in"])
    # a preset that is the default was chosen by nothing
    plain = written(tmp_path, f'format = 1\nmethod = "joint"\n[settings]\n[tuned]\nseen = {digests}\n')
    assert not load_preset(plain).chosen_on(["Peru is in"])


def test_a_preference_takes_its_own_point(tmp_path: Path) -> None:
    name = written(tmp_path)
    config = settings(name, prefer="locality")
    assert (config.lam, config.targets.kl, config.layers) == (90, 2.0, "1-2")
    assert config.prefer == "balanced", "the point itself is the preference"
    assert settings(name, prefer="success").lam == 1
    assert settings(name).prefer == "balanced"
    # what stands on the command line counts more
    assert settings(name, layers="3", lam=0.3).layers == "3"
    assert settings(name, prefer="locality", lam=0.3).lam == 0.3


def test_a_file_that_fixes_nothing_leaves_the_preference_to_the_edit(tmp_path: Path) -> None:
    name = written(tmp_path, "format = 1\n[settings]\n[prefer.success]\nlam = 0.3\nrank = 5\n")
    assert settings(name) == EditConfig()
    assert settings(name, prefer="locality") == EditConfig(prefer="locality")
    assert settings(name, prefer="success") == EditConfig(lam=0.3, rank=5)


def test_the_hub_is_asked_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def fetch(repo: str, file: str, *, revision: str | None, **_: object) -> str:
        asked.append((repo, file, revision))
        return written(tmp_path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert preset("me/tuned@v1").layers == "1-2"
    assert preset("me/tuned").layers == "1-2"
    assert asked == [("me/tuned", "preset.toml", "v1"), ("me/tuned", "preset.toml", None)]


def test_a_repository_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as found:
        load_preset("nobody/no-such-preset")
    assert "nobody/no-such-preset" in found.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = 1", "a table [settings]"),
        ("format = 2\n[settings]", "no preset of this version"),
        ("format = ", "is no preset"),
        ("format = 1\n[settings]\nlayer = 3", "'layer' is no setting"),
        ("format = 1\n[settings]\nlayers = 3", "layers must be text in quotation marks, and is 3"),
        ("format = 1\n[settings]\nwhiten = 1", "whiten must be true or false"),
        ("format = 1\n[settings]\nrank = true", "rank must be a whole number"),
        ("format = 1\n[settings]\nlam = '1'", "lam must be a number"),
        ("format = 1\n[settings]\ntargets = 3", "targets is no table"),
        ("format = 1\n[settings.targets]\nklm = 3", "'klm' is no setting"),
        ("format = 1\n[settings.stats]\ncorpus = '/etc/passwd'", "'stats' is no setting"),
        ("format = 1\n[settings]\ncollapse = 'tell'", "'collapse' is no setting"),
        ("format = 1\n[settings]\n[prefer.success]\nx = 1", "'x' is no setting"),
        ("format = 1\nprefer = 3\n[settings]", "prefer is no table"),
        ("format = 1\n[settings]\n[prefer]\nsuccess = 3", "success is no table"),
        ("format = 1\n[settings]\n[more]", "unknown table 'more'"),
        ("format = 1\nmethod = 'magic'\n[settings]", "unknown method 'magic'"),
    ],
)
def test_a_file_with_a_fault_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        preset(written(tmp_path, text))
    assert said in found.value.message


def test_unknown_names_list_what_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        preset("gpt-5")
    assert all(name in found.value.hint for name in PRESETS)
    with pytest.raises(ConfigError, match="there is no preset"):
        preset(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="there is no preset"):
        preset(str(tmp_path))


def test_a_preset_of_another_method(tmp_path: Path) -> None:
    name = written(tmp_path, "format = 1\nmethod = 'memit'\n[settings]\nlam = 20.0\n")
    config = preset(name, "memit")
    assert (config.method, config.lam, config.targets.optimizer) == ("memit", 20.0, "adam")
    assert preset(name) == config, "a file says which method it is for"
    with pytest.raises(ConfigError, match="a preset of --method memit"):
        preset(name, "joint")


def test_an_unknown_preference_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown preference 'speed'"):
        settings(None, prefer="speed")
    with pytest.raises(ConfigError, match="has no --prefer"):
        settings(None, "memit", prefer="success")
