"""Runs the cells of a benchmark that nobody has finished, and adds each to the results file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hubedit
from hubedit.bench.cells import Cell, cells
from hubedit.bench.configuration import Bench, ModelEntry
from hubedit.bench.facts import Pool, chosen, pool, sha256
from hubedit.bench.results import Results, Row
from hubedit.bench.row import edit_summary, first_and_last, flat, made
from hubedit.cache import Cache, digest
from hubedit.config import StatsConfig, to_dict
from hubedit.documents import documents
from hubedit.edit.compute import Edit, compute
from hubedit.edit.statistics.corpus import unseen_rows
from hubedit.environment import peak_memory
from hubedit.errors import ConfigError, HubEditError, ModelError
from hubedit.evaluate import harness
from hubedit.evaluate.bystanders import candidates
from hubedit.evaluate.measure import Settings, fitting, known, measure
from hubedit.evaluate.records import dataset
from hubedit.evaluate.report import report
from hubedit.evaluate.text import text_rows
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import find, identity
from hubedit.model.instruct import choose
from hubedit.model.load import load, pick_device
from hubedit.model.memory import forget_peak, release
from hubedit.progress import Progress, Silent

_VERSION = 6  # of what a row holds; a change makes the old ones void


@dataclass(frozen=True)
class Machine:
    """Where the edits are computed: as for `hubedit.model.load.load`. `task_path`: a folder with tasks of
    one's own; `retry`: failed cells are run again; `chat`, `system`: as for
    `hubedit.model.instruct.choose`."""

    device: str = "auto"
    dtype: str = "auto"
    cache: Cache | None = None
    task_path: Path | None = None
    trust_remote_code: bool = False
    retry: bool = False
    chat: str = "auto"
    system: str = ""


@dataclass(frozen=True)
class Done:
    """Cells: `computed` by this run, `failed` of them, `kept` from earlier runs, `elsewhere`: another process
    is computing them. `left_out`: models and data that cannot be used; `problems`: why, and lines of the file
    that are none; `keys`: of the rows in the results file that are these cells' with these models and
    data."""

    computed: int = 0
    failed: int = 0
    kept: int = 0
    elsewhere: int = 0
    left_out: int = 0
    problems: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


def run(bench: Bench, out: Path, *, machine: Machine | None = None, progress: Progress | None = None) -> Done:
    """Computes what is missing in `out`. A cell that fails is recorded with its error, and the next begins.

    Raises ConfigError for a benchmark that cannot be run at all. Models and data that cannot be read are
    reported in `problems`; nothing of them is recorded, so they are tried again by the next run.
    """
    machine, progress = machine or Machine(), progress or Silent()
    work = cells(bench)
    if not bench.models or not bench.data:
        what = "model" if not bench.models else "data"
        raise ConfigError(f"the benchmark names no {what}", f"give it with --{what}")
    if bench.measure.tasks:
        harness.require()
        harness.unique(bench.measure.tasks)
    pick_device(machine.device)
    results = Results(out)
    results.check()
    counts = dict.fromkeys(("computed", "failed", "kept", "elsewhere"), 0)
    broken = results.read().problems
    left_out: list[str] = []
    keys: list[str] = []
    for model in bench.models:
        own = [cell for cell in work if cell.model == model]
        try:
            bed = _Bed(model, bench, machine, progress, results)
        except (ModelError, ConfigError) as error:
            left_out.append(f"{model.name} is left out: {error.message}")
            continue
        try:
            for name, count in bed.work(own).items():
                counts[name] += count
        except ModelError as error:
            left_out.append(f"{model.name} is left out: {error.message}")
        left_out += bed.problems
        keys += bed.keys
    problems = (*broken, *left_out)
    return Done(**counts, left_out=len(left_out), problems=problems, keys=tuple(keys))


@dataclass
class _Bed:
    """One model, loaded when the first cell needs it, with the data that its cells edit."""

    model: ModelEntry
    bench: Bench
    machine: Machine
    progress: Progress
    results: Results
    problems: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = find(self.model.ref, code=self.machine.trust_remote_code)
        self._identity, self._folder = identity(source), source.folder
        self._cache = self.machine.cache or Cache()
        self._em: EditableModel | None = None
        self._pools: dict[str, Pool | None] = {}

    def work(self, own: Sequence[Cell]) -> dict[str, int]:
        """Passes over the cells until a pass finds nothing to do; a cell of a process that has died
        meanwhile is taken over."""
        counts = dict.fromkeys(("computed", "failed", "kept", "elsewhere"), 0)
        keyed = [(cell, self._key(cell)) for cell in own]
        todo = [(cell, key) for cell, key in keyed if key]
        self.keys += [key for _, key in todo]
        done = self.results.read().by_key
        counts["kept"] = sum(1 for _, key in todo if self._finished(done.get(key)))
        mine: set[str] = set()
        while True:
            before, elsewhere = len(mine), 0
            for number, (cell, key) in enumerate(todo, 1):
                if key in mine or self._finished(self.results.read().by_key.get(key)):
                    continue
                with self.results.claim(key) as free:
                    if not free:
                        elsewhere += 1
                        continue
                    # another process may have finished it between the look and the claim
                    if self._finished(self.results.read().by_key.get(key)):
                        continue
                    row = self._row(cell, key, f"[{number}/{len(todo)}] {cell.title}")
                    self.results.append(row)
                    mine.add(key)
                    counts["computed"] += 1
                    counts["failed"] += "error" in row
            if len(mine) == before:
                counts["elsewhere"] = elsewhere
                return counts

    def _finished(self, row: Row | None) -> bool:
        return row is not None and not (self.machine.retry and "error" in row)

    def _key(self, cell: Cell) -> str:
        """The hash of all that the cell's numbers depend on; "" where its data cannot be read."""
        facts = self._pool(cell)
        if facts is None:
            return ""
        tasks = [
            harness.task_key(task, self.machine.task_path, self.bench.measure.task_limit)
            for task in harness.unique(self.bench.measure.tasks)
        ]
        return digest(
            {
                "version": [_VERSION, hubedit.__version__],
                "model": self._identity,
                "device": pick_device(self.machine.device).type,
                "dtype": self.machine.dtype,
                "chat": [self.machine.chat, self.machine.system],
                "facts": facts.sha256,
                "sample": self.bench.sample,
                "cell": cell.identity(),
                "config": to_dict(cell.config),
                "measure": asdict(self.bench.measure),
                "read": [self._read(name, cell) for name in ("text", "real_text", "bystanders")],
                "tasks": tasks,
            }
        )

    def _source(self, text: str, cell: Cell) -> str:
        return text.replace("{model}", str(self._folder)).replace("{seed}", str(cell.seed))

    def _read(self, name: str, cell: Cell) -> str:
        """sha256 of a file that is measured with; "" where it is none."""
        path = Path(self._source(getattr(self.bench.measure, name), cell)).expanduser()
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _pool(self, cell: Cell) -> Pool | None:
        source = self._source(cell.data.source, cell)
        if source not in self._pools:
            try:
                self._pools[source] = pool(source)
            except HubEditError as error:
                self._pools[source] = None
                self.problems.append(f"{cell.data.name} is left out: {error.message}")
        return self._pools[source]

    def _loaded(self) -> EditableModel:
        if self._em is None:
            self.progress.start(f"loading {self.model.name}")
            machine = self.machine
            self._em = load(
                self.model.ref,
                device=machine.device,
                dtype=machine.dtype,
                trust_remote_code=machine.trust_remote_code,
            )
            chat, line = choose(self._em, machine.chat, machine.system)
            self._em = replace(self._em, chat=chat)
            self.progress.finish(f"{self._em.num_layers} layers on {self._em.device}")
            if line:
                self.progress.message(line)
        return self._em

    def _row(self, cell: Cell, key: str, title: str) -> Row:
        """The cell's line: its numbers, or the error that it ended with."""
        em = self._loaded()
        self.progress.start(title)
        head = {"key": key, "cell": cell.identity(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
        failed: dict[str, str] | None = None
        try:
            found = self._computed(em, cell)
        except (HubEditError, RuntimeError, MemoryError, ArithmeticError) as error:
            first = (str(getattr(error, "message", error)).strip() or type(error).__name__).splitlines()[0]
            self.progress.finish(f"failed: {first}")
            failed = {"kind": type(error).__name__, "message": first}
        if failed is not None:  # behind the `except`, whose traceback holds on to the tensors
            release(em.device)
            return {**head, "error": failed, **made(em, cell)}
        success = found["metrics"].get("answers/success", {}).get("after")
        mean = found["metrics"].get("answers/harmonic_mean", {}).get("after")
        shown = [
            f"{name} {100 * x:.1f}" for name, x in (("success", success), ("mean", mean)) if x is not None
        ]
        self.progress.finish(", ".join(shown))
        return {**head, **made(em, cell), **found}

    def _computed(self, em: EditableModel, cell: Cell) -> dict[str, Any]:
        data, bench = self._pool(cell), self.bench
        assert data is not None
        facts = chosen(em, cell, data, bench.sample)
        forget_peak(em.device)
        start = time.perf_counter()
        edit = compute(em, facts, cell.config, cache=self._cache)
        middle = time.perf_counter()
        peak = peak_memory(em.device)
        metrics, notes = self._measured(em, cell, data, facts, edit)
        ended = time.perf_counter()
        metrics |= {"run/seconds": {"after": middle - start}}
        metrics |= {f"run/{name}": {"after": float(used)} for name, used in peak.items()}
        return {
            "metrics": metrics,
            "facts": {"n": len(facts), "sha256": sha256(facts), "repeated": data.repeated},
            "edit": edit_summary(edit),
            "seconds": {"edit": middle - start, "evaluation": ended - middle, **edit.seconds},
            "notes": notes,
            "peak_memory": peak,
        }

    def _measured(
        self, em: EditableModel, cell: Cell, data: Pool, facts: Sequence[Fact], edit: Edit
    ) -> tuple[dict[str, Any], list[str]]:
        wanted = self.bench.measure
        corpus, source = self._source(wanted.text, cell), self._source(wanted.bystanders, cell)
        text = StatsConfig(corpus=corpus, seed=cell.seed) if corpus else cell.config.stats
        rows = unseen_rows(em, text, self._cache, Silent())[0] if wanted.text != "none" else []
        real = text_rows(em, documents(self._source(wanted.real_text, cell))) if wanted.real_text else []
        tasks = harness.unique(wanted.tasks)
        place, limit = self.machine.task_path, wanted.task_limit
        settings = Settings(wanted.fluency, wanted.forms, wanted.automatic, tasks, place, limit, cell.seed)
        unedited = candidates(dataset(source).facts if source else data.facts, facts)
        others = known(em, fitting(em, unedited)[0], cache=self._cache)
        old = measure(em, facts, settings=settings, cache=self._cache)
        new = measure(
            em.with_patch(edit.factors),
            facts,
            before=em,
            rows=rows,
            real=real,
            bystanders=others,
            settings=settings,
            cache=self._cache,
        )
        content = report(facts, old, new, bystanders=others, seed=cell.seed)
        return flat(content) | first_and_last(content), list(content.get("notes", ()))
