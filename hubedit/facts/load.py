"""Facts from a file: every fault collected, duplicates and contradictions settled."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn, get_args, overload

from hubedit.errors import ConfigError, FactsError, kind
from hubedit.facts.check import finish
from hubedit.facts.dump import dump_facts
from hubedit.facts.fact import Record
from hubedit.facts.schemas import CSV_FIELDS, FORMATS, SCHEMAS, Schema, by_rewrite, detect, looks_like
from hubedit.facts.source import Container, Raw, Source, read_text, split
from hubedit.facts.text import loose
from hubedit.facts.types import Fact, Probe

OnConflict = Literal["stop", "first", "last"]
_SHOWN = 5


@dataclass(frozen=True)
class LoadedFacts(Sequence[Fact]):
    """The facts of a file, in order. `notices`: what was mended or left out, one line each. `sha256`: of
    `dump_facts(facts)`."""

    facts: tuple[Fact, ...]
    format: str
    notices: tuple[str, ...]
    sha256: str

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fact, ...]: ...
    def __getitem__(self, index: int | slice) -> Fact | tuple[Fact, ...]:
        return self.facts[index]

    def __len__(self) -> int:
        return len(self.facts)


def load_facts(
    path: str | Path, *, format: str = "auto", limit: int = 0, on_conflict: OnConflict = "stop"
) -> LoadedFacts:
    """Reads facts in any of `FORMATS` ("auto": seen from the content).

    `limit`: only that many facts from the first on (0: all; what follows is not checked).
    `on_conflict`: two targets for one prompt are an error ("stop"), or the first or last one counts.
    Raises FactsError; its `problems` lists every fault as `file:line: what; how to mend it`.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown facts format {format!r}", f"known: {', '.join(FORMATS)}")
    if on_conflict not in get_args(OnConflict):
        raise ConfigError(f"unknown on_conflict {on_conflict!r}", "known: stop, first, last")
    if limit < 0:
        raise ConfigError(f"limit is {limit}", "0 reads all facts")
    if not isinstance(path, (str, Path)):
        raise FactsError(
            f"load_facts reads a file, and this is {kind(path)}",
            "hubedit.Fact(prompt, subject, target) makes a fact by hand",
        )
    path = Path(path).expanduser()
    text = read_text(path)
    forced: Container | None = next((c for c in get_args(Container) if c == format), None)
    source = split(text, path, forced)
    source.records = list(by_rewrite(source.records))
    own = forced or source.container
    schema = SCHEMAS[format] if format != "auto" else detect((raw.data for raw in source.records), own)
    if not source.records:
        _nothing(path, source)
    reading = _Reading(path, schema, source, on_conflict, mixed=format == "auto")
    for number, raw in enumerate(source.records):
        if limit and len(reading.facts) == limit:
            source.problems = [problem for problem in source.problems if problem[0] < raw.line]
            break
        reading.add(number, raw)
    return reading.result()


def from_records(records: Sequence[Raw], where: str, problems: Sequence[tuple[int, str]] = ()) -> LoadedFacts:
    """Facts of hubedit's own fields that stood in no file; `where` names them in messages, `problems` are
    what was found wrong before, as (line, what). Raises FactsError as `load_facts` does."""
    source = Source("jsonl", records=list(records), problems=list(problems))
    if not records:
        _nothing(Path(where), source)
    reading = _Reading(Path(where), SCHEMAS["jsonl"], source, "stop", mixed=False)
    for number, raw in enumerate(records):
        reading.add(number, raw)
    return reading.result()


def _nothing(path: Path, source: Source) -> NoReturn:
    """Raises for a file without a single record."""
    problems = [f"{path}:{line}: {what}" for line, what in source.problems]
    if problems:
        raise FactsError(f"{path}: {_count(problems)}", problems=problems)
    raise FactsError(f"{path}: no facts in it", "write one fact on each line")


def _count(problems: Sequence[object]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"


class _Reading:
    """The facts read so far and everything noted on the way."""

    def __init__(
        self, path: Path, schema: Schema, source: Source, on_conflict: OnConflict, mixed: bool
    ) -> None:
        self.facts: dict[int, Fact] = {}
        self._path, self._schema, self._source = path, schema, source
        self._on_conflict, self._check_schema = on_conflict, mixed
        lines = Counter(raw.line for raw in source.records if raw.part <= 1)
        self._crowded = {line for line, count in lines.items() if count > 1}
        self._by_prompt: dict[str, list[int]] = {}
        self._problems: list[tuple[int, str]] = []
        self._notices: dict[str, list[str]] = {}
        self._readable = schema.name != "csv" or self._check_columns()

    def add(self, number: int, raw: Raw) -> None:
        """Reads one record: a fact more, or problems."""
        if not self._readable:
            return
        problems = [f'"{key}" stands twice in the object; keep one' for key in raw.doubled]
        record = Record({}, self._schema.strict)
        if not isinstance(raw.data, Mapping):
            problems.append('not a JSON object; write {"prompt": ..., "subject": ..., "target": ...}')
        elif self._check_schema and (other := self._stranger(raw.data)):
            problems.append(f"a {other} record among {self._schema.name} ones; put it in a file of its own")
        else:
            record = Record(raw.data, self._schema.strict)
            fact = finish(self._schema.read(record), record)
            if fact is not None and not problems:
                self._keep(number, replace(fact, line=raw.line))
        for what in problems + record.problems:
            self._problem(number, what)
        for what in record.notices:
            self._notice(number, what)

    def result(self) -> LoadedFacts:
        """Everything read. Raises FactsError with all problems."""
        self._check_ids()
        self._check_rephrasings()
        found = self._source.problems
        problems = self._problems + [(line, f"{self._path}:{line}: {what}") for line, what in found]
        if problems:
            problems.sort(key=lambda problem: problem[0])
            hint = next(
                (mend for mark, mend in _HINTS if any(re.search(mark, what) for _, what in problems)), ""
            )
            raise FactsError(f"{self._path}: {_count(problems)}", hint, [what for _, what in problems])
        facts = tuple(self.facts.values())
        digest = hashlib.sha256(dump_facts(facts).encode()).hexdigest()
        return LoadedFacts(facts, self._schema.name, tuple(self._notice_lines()), digest)

    def _keep(self, number: int, fact: Fact) -> None:
        others = self._by_prompt.setdefault(loose(fact.prompt), [])
        for other in others:
            first = self.facts[other]
            if first.subject == fact.subject and first.prompt == fact.prompt and not _differ(first, fact):
                self.facts[other] = _merge(first, fact)
                self._notice(number, f"the same fact as line {self._at(other)}; dropped, its probes are kept")
                return
        for other in [o for o in others if _differ(self.facts[o], fact)]:
            first = self.facts[other]
            if self._on_conflict == "stop":
                mine, theirs = ("".join(_answer(f)) for f in (fact, first))
                what = f'{_CONFLICT} {self._at(other)}: "{mine}" against "{theirs}"'
                self._problem(number, f'{what} for "{fact.prompt}"; keep one of the two')
                return
            dropped, kept = (number, other) if self._on_conflict == "first" else (other, number)
            self._notice(dropped, f"dropped, because line {self._at(kept)} gives the prompt another target")
            if dropped == number:
                return
            del self.facts[other]
            others.remove(other)
        self.facts[number] = fact
        others.append(number)

    def _check_ids(self) -> None:
        seen: dict[str, int] = {}
        for number, fact in self.facts.items():
            if fact.id in seen:
                what = f'id "{fact.id}" is that of line {self._at(seen[fact.id])} too'
                self._problem(number, f"{what}; give every fact its own")
            elif fact.id:
                seen[fact.id] = number

    def _check_rephrasings(self) -> None:
        """A rephrasing that another fact edits to another target cannot come out as both."""
        for number, fact in self.facts.items():
            for phrase in fact.rephrase:
                for other in self._by_prompt.get(loose(phrase), ()):
                    if other != number and self.facts[other].target != fact.target:
                        theirs = f'"{self.facts[other].target}" at line {self._at(other)}'
                        self._notice(number, f'the rephrasing "{phrase}" has another target, {theirs}')

    def _check_columns(self) -> bool:
        """Whether a CSV's rows are worth reading: a missing column is reported once, not for every row."""
        top, columns = self._source.top, self._source.columns
        header = Record(dict.fromkeys(columns), strict=True)
        header.known(CSV_FIELDS)
        for name in ("prompt", "target"):
            if name not in columns:
                header.text(name, "it to the first line")
        self._problems += [
            (top, f"{self._path}:{top}: {p.replace('field', 'column', 1)}") for p in header.problems
        ]
        return not header.problems

    def _stranger(self, data: Mapping[str, object]) -> str:
        """The other schema that a record has, or "". Flat CounterFact and KnowEdit are read alike."""
        other = looks_like(data, "hubedit" if self._schema.strict else "")
        if other in ("", "hubedit") or SCHEMAS[other].read is self._schema.read:
            return ""
        return other

    def _problem(self, number: int, what: str) -> None:
        line = self._source.records[number].line
        self._problems.append((line, f"{self._path}:{self._at(number)}: {what}"))

    def _notice(self, number: int, what: str) -> None:
        kind = re.sub(r'"[^"]*"|\d+', "", what)
        self._notices.setdefault(kind, []).append(f"{self._path}:{self._at(number)}: {what}")

    def _notice_lines(self) -> list[str]:
        """The first few of each kind, and how many more there are."""
        lines: list[str] = []
        for same in self._notices.values():
            lines += same[:_SHOWN]
            if len(same) > _SHOWN:
                lines.append(f"{self._path}: {len(same) - _SHOWN} more like the one before")
        return lines

    def _at(self, number: int) -> str:
        """The line of a record, and which record or rewrite it is where several stand there."""
        raw = self._source.records[number]
        which = [f"record {raw.number}"] if raw.line in self._crowded else []
        which += [f"rewrite {raw.part}"] if raw.part else []
        return f"{raw.line} ({', '.join(which)})" if which else str(raw.line)


_CONFLICT = "contradicts line"
_HINTS = (
    ("contradicts line", "--on-conflict first or last keeps one of two facts that contradict each other"),
    (
        "is not in the prompt",
        "the subject is the words of the prompt that the fact is about; without the field a name in the "
        "prompt is taken, or the edit is made at the prompt's last token",
    ),
)


def _answer(fact: Fact) -> tuple[str, str]:
    """What is written after the prompt, as far as the fact decides it."""
    return fact.join or "", fact.target


def _differ(a: Fact, b: Fact) -> bool:
    """Whether two facts of about the same prompt have other targets, or join the same one otherwise."""
    return a.target != b.target or (a.prompt == b.prompt and a.join != b.join)


def _merge(first: Fact, second: Fact) -> Fact:
    """One fact with the probes of both."""

    def both(a: tuple[Probe, ...], b: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(dict.fromkeys(a + b))

    return replace(
        first,
        ground_truth=tuple(dict.fromkeys(first.ground_truth + second.ground_truth)),
        rephrase=tuple(dict.fromkeys(first.rephrase + second.rephrase)),
        locality=both(first.locality, second.locality),
        portability=both(first.portability, second.portability),
    )
