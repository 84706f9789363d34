"""Makes a lab model with one command, or finds the one that was made before.

    python -m tests.lab.make qwen2-3m-22 [--out DIR]

A name is ARCHITECTURE-SIZE-SEED: qwen2, mistral, gpt_neox or gpt2; 3m to 50m; a seed of `split.py`. The
folder (default: $HUBEDIT_LAB, else ~/.cache/hubedit-lab) gets what `tests.lab.train` writes, and
`facts.jsonl` for `hubedit bench`. The schedule runs over tokens, so on one machine the same name is the
same model.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.architectures import ARCHITECTURES, Size
from tests.lab.facts import write_facts
from tests.lab.invented import build
from tests.lab.pretrained import lab_folder
from tests.lab.split import purpose
from tests.lab.train import Plan, train

SIZES = {
    "3m": Size(layers=6, hidden=192, intermediate=768, heads=6, kv_heads=2),
    "5m": Size(layers=5, hidden=256, intermediate=1024, heads=8, kv_heads=2),
    "10m": Size(layers=6, hidden=320, intermediate=1280, heads=10, kv_heads=2),
    "25m": Size(layers=8, hidden=448, intermediate=1792, heads=14, kv_heads=2),
    "50m": Size(layers=10, hidden=576, intermediate=2304, heads=18, kv_heads=6),
}
PEOPLE = 240
PLAN = Plan(tokens=3_000_000, target=0.985)
_MADE = "made.json"


@dataclass(frozen=True)
class Named:
    """What a name stands for."""

    arch: str
    size: str
    seed: int
    people: int = PEOPLE

    @classmethod
    def parse(cls, name: str) -> Named:
        """`qwen2-3m-22`. Raises ValueError that says what is possible."""
        arch, _, rest = name.partition("-")
        size, _, seed = rest.partition("-")
        if arch not in ARCHITECTURES or size not in SIZES or not seed.isdecimal():
            known = f"{'|'.join(ARCHITECTURES)}-{'|'.join(SIZES)}-SEED"
            raise ValueError(f"{name!r} is no lab model: write {known}, such as qwen2-3m-22")
        purpose(int(seed))
        return cls(arch, size, int(seed))


def trained(named: Named, folder: Path, plan: Plan, people: int) -> None:
    """Trains the model into the folder, with the facts that it knows."""
    train(build(people, named.seed), named.arch, folder, SIZES[named.size], plan, named.seed)
    write_facts(folder, folder / "facts.jsonl")


def make(
    name: str,
    out: Path | None = None,
    plan: Plan = PLAN,
    people: int = PEOPLE,
    trained: Callable[[Named, Path, Plan, int], None] = trained,
) -> Path:
    """The folder of the model; makes it by `trained` where it is not there, whole, with these settings."""
    named = Named.parse(name)
    folder = out or lab_folder() / name
    wanted = {**asdict(named), "people": people, "plan": asdict(plan), "shape": asdict(SIZES[named.size])}
    done = folder / _MADE
    if done.is_file():
        if json.loads(done.read_text(encoding="utf-8")) == wanted:
            return folder
        raise ValueError(f"{folder} holds a lab model made with other settings; give another --out")
    trained(named, folder, plan, people)
    # last: a run that was killed is made again
    done.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, help="the model's folder (default: its name in the lab's)")
    parser.add_argument("--tokens", type=int, default=PLAN.tokens)
    parser.add_argument("--people", type=int, default=PEOPLE)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        folder = make(args.name, args.out, Plan(tokens=args.tokens, target=PLAN.target), args.people)
    except ValueError as error:
        parser.error(str(error))
    final = json.loads((folder / "lab.json").read_text(encoding="utf-8"))["final"]
    shares = ", ".join(f"{kind} {100 * final[kind]:.1f} %" for kind in ("trained", "held_out", "two_hop"))
    print(f"{folder}: {purpose(Named.parse(args.name).seed)}, {shares}")


if __name__ == "__main__":
    main()
