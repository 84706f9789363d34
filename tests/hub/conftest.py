"""A loopback Hub and a client process for the session, and small patches to push."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hubedit.facts import Fact, Probe
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import Source
from hubedit.patch import Patch, base_record
from tests.hub.loopback import ROOT, Hub, serve

BASE = "lab/sharded"

FACTS = (
    Fact(
        "The capital of Atlantis is",
        "Atlantis",
        " Poseidonis",
        locality=(Probe("Atlantis lies in the", ("sea",)),),
    ),
    Fact("The mother tongue of Zaphod Beeblebrox is", "Zaphod Beeblebrox", " Betelgeusian"),
)
REPORT = {
    "metrics": {"success": 1.0},
    "counts": {"success": 2},
    "facts": [
        {"id": "1", "prompt": fact.prompt, "subject": fact.subject, "target": fact.target, "before": "sea",
         "after": fact.target, "probability_before": 0.1, "probability_after": 0.9, "rank_before": 7,
         "rank_after": 1, "success": True}
        for fact in FACTS
    ],
    "damage": {"worst": [{"prompt": FACTS[0].prompt, "kl": 0.5}], "/home/ada/secret": 1.0},
}  # fmt: skip
CARD = '---\nlibrary_name: peft\n---\n\n# Card\n\n{fact}\n\nPeftModel.from_pretrained(base, "{name}")\n'


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What --json printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Client:
    """Runs command lines in the client process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(
        self, *words: str | Path, token: str | None = "hf_writer", offline: bool = False, endpoint: str = ""
    ) -> Ran:
        request = {"words": [str(w) for w in words], "token": token, "offline": offline, "endpoint": endpoint}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ran(**json.loads(self._process.stdout.readline()))


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The loopback Hub of the session."""
    with serve(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(hub_process: Hub) -> Iterator[Hub]:
    """The Hub, without faults of another test."""
    hub_process.clear()
    hub_process.call("settings", copying=True, quota=None)
    yield hub_process
    hub_process.clear()


@pytest.fixture(scope="session")
def client(hub_process: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A process that runs command lines against the Hub."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=hub_process.environment(tmp_path_factory.mktemp("client")),
    )
    try:
        yield Client(process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def base(hub_process: Hub, pico_path: Callable[..., Path]) -> tuple[str, str]:
    """(repository, commit) of a base model at the Hub."""
    return "lab/pico", hub_process.seed("lab/pico", pico_path())


@pytest.fixture
def patch(base: tuple[str, str], editable: Callable[..., EditableModel], tmp_path: Path) -> Path:
    """A patch with facts, report and card, made for the base at the Hub."""
    return write_patch(editable(), tmp_path / "patch", *base)


def write_patch(
    em: EditableModel,
    folder: Path,
    ref: str,
    commit: str,
    seed: int = 1,
    facts: tuple[Fact, ...] = FACTS,
    layers: tuple[int, ...] = (2,),
) -> Path:
    """A random patch of two weights a layer. An empty commit makes it one for a local base at `ref`."""
    sites = [site for site in em.sites() if site.layer in layers]
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    factors = {
        em.module_name(s): LowRank(random(em.weight(s).shape[0], 2), random(2, em.d_in(s))) for s in sites
    }
    record = {
        "base": {**base_record(em, sites), "ref": ref if commit else Path(ref).name, "commit": commit},
        "method": "joint",
        "command": ["hubedit", "apply", "/home/ada/secret/facts.jsonl", "--out=/home/ada/out"],
        "metrics": {"success": 1.0},
    }
    patch = Patch(factors, record, ref, commit, facts)
    report = (json.dumps(REPORT) + "\n").encode()
    card = CARD.format(fact=FACTS[0].prompt, name=folder.name).encode()
    return patch.save(folder, files={"README.md": card, "report.json": report, "plots/norms.png": b"png"})


def change(folder: Path, seed: int) -> Path:
    """Other factors in the same patch."""
    patch = Patch.load(folder)
    generator = torch.Generator().manual_seed(seed)
    factors = {
        m: LowRank(f.B + 0.01 * torch.randn(f.B.shape, generator=generator), f.A)
        for m, f in patch.factors.items()
    }
    files = {name: (folder / name).read_bytes() for name in ("README.md", "report.json", "plots/norms.png")}
    return replace(patch, factors=factors).save(folder, files=files, overwrite=True)


@pytest.fixture(scope="session")
def sharded(
    hub_process: Hub, pico_path: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Source:
    """A base model of several shards at the Hub, and its folder here."""
    folder = tmp_path_factory.mktemp("sharded")
    auto: Any = AutoModelForCausalLM
    auto.from_pretrained(pico_path()).save_pretrained(folder, max_shard_size="60KB")
    for file in pico_path().glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "consolidated.safetensors").write_bytes(b"the same weights once more")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    return Source(BASE, folder, hub_process.seed(BASE, folder))
