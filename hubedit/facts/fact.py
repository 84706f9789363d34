"""Typed access to one record: values in normal form, every fault noted instead of raised."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hubedit.facts.text import clean, is_blank, is_text, trim
from hubedit.facts.types import Probe

_PROBE_KEYS = ("prompt", "answer", "ground_truth", "type")


@dataclass
class Record:
    """One JSON object. `strict`: hubedit's own schema, where a value of another type is a fault.

    Benchmark files are read as they are: numbers count as text, nested lists are flattened, and a
    probe without a prompt is left out with a notice.
    """

    data: Mapping[str, Any]
    strict: bool
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def known(self, keys: Iterable[str]) -> None:
        """Notes every key that is not among `keys`, with the nearest one that is."""
        for key in self.data:
            if key not in set(keys):
                self.problems.append(_unknown(str(key), tuple(keys)))

    def text(self, key: str, needed: str = "") -> str:
        """A trimmed string; "" where there is none. `needed` says what the field is for, when it must be
        there."""
        text = self._one(key, needed)
        lead, kept = text[: len(text) - len(text.lstrip())], trim(text)
        # a single space before the target is a habit of the field's files, and joined so anyway
        if kept and (lead not in ("", " ") or text != text.rstrip()):
            mend = '; "join" says what stands before it' if key == "target" else ""
            self.notices.append(f'white space around "{key}" is cut off{mend}')
        return kept

    def prompt(self, key: str, needed: str = "") -> str:
        """A string as it was written, white space at its ends included; "" where there is none."""
        return self._one(key, needed)

    def _one(self, key: str, needed: str) -> str:
        value = self.data.get(key)
        while not self.strict and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None:
            if needed and not self._misspelt(key):
                self.problems.append(f'missing field "{key}"; add {needed}')
            return ""
        text = self._string(value, key, str)
        if text is not None and is_blank(text):
            if needed:
                self.problems.append(f'"{key}" is empty; give {needed}')
            return ""
        return text or ""

    def join(self) -> str | None:
        """White space that stands between prompt and target; None where the text decides."""
        value = self.data.get("join")
        if value is None or (isinstance(value, str) and not value.strip()):
            return value
        self.problems.append('"join" is no white space; write "" or " ", or leave it out')
        return None

    def id(self, key: str) -> str:
        """A name of the record; a number is one too."""
        value = self.data.get(key)
        return str(value) if type(value) is int else clean(self._one(key, ""))

    def texts(self, key: str) -> tuple[str, ...]:
        """A string or a list of strings, without empty ones and repetitions."""
        return self._texts(self.data.get(key), key, clean)

    def prompts(self, key: str) -> tuple[str, ...]:
        """A string or a list of strings as they were written, without blank ones and repetitions."""
        return self._texts(self.data.get(key), key, str)

    def probes(self, key: str, kind: str = "") -> tuple[Probe, ...]:
        """A list of probes, or an object from probe type to such a list."""
        value = self.data.get(key)
        if value is None:
            return ()
        if isinstance(value, Mapping):
            return tuple(p for name, part in value.items() for p in self._probes(part, f"{key}.{name}", name))
        return tuple(self._probes(value, key, kind))

    def _probes(self, value: Any, at: str, kind: str) -> Iterable[Probe]:
        if isinstance(value, Mapping):
            value = [value] if self.strict else self._columns(value, at)
        if value is None:
            return
        if not isinstance(value, list):
            self.problems.append(f'"{at}" is {_kind(value)}; {_PROBE_EXAMPLE.format(at.split(".")[0])}')
            return
        for number, item in enumerate(value):
            probe = self._probe(item, f"{at}[{number}]", kind)
            if probe is not None:
                yield probe

    def _columns(self, value: Mapping[str, Any], at: str) -> list[Any]:
        """EasyEdit's column form: {"prompt": [...], "ground_truth": [...]}."""
        prompts, answers = value.get("prompt"), value.get("ground_truth")
        if not isinstance(prompts, list):
            return [value]
        if answers is None:
            return [{"prompt": prompt} for prompt in prompts]
        if not isinstance(answers, list) or len(answers) != len(prompts):
            self.problems.append(f'"{at}" has {len(prompts)} prompts but another number of answers')
            return []
        return [{"prompt": p, "ground_truth": a} for p, a in zip(prompts, answers, strict=True)]

    def _probe(self, item: Any, at: str, kind: str) -> Probe | None:
        if isinstance(item, str):
            item = {"prompt": item}
        if not isinstance(item, Mapping):
            self.problems.append(f'"{at}" is {_kind(item)}; {_PROBE_EXAMPLE.format(at.split("[")[0])}')
            return None
        if self.strict:
            self.problems += [_unknown(k, _PROBE_KEYS, f' in "{at}"') for k in item if k not in _PROBE_KEYS]
            if "answer" in item and "ground_truth" in item:
                self.problems.append(f'"{at}" has both "answer" and "ground_truth"; keep "answer"')
        prompt = ""
        if item.get("prompt") is not None:
            prompt = self._string(item["prompt"], f"{at}.prompt", str) or ""
        if is_blank(prompt):
            if self.strict:
                self.problems.append(f'"{at}" has no prompt; add "prompt": "..."')
            else:
                self.notices.append(f'"{at}" has no prompt; left out')
        name = "answer" if "answer" in item else "ground_truth"
        answers = self._texts(item.get(name), f"{at}.{name}", clean)
        own = item.get("type")
        if self.strict:
            kind = (self._string(own, f"{at}.type") or "") if own is not None else kind
        elif not clean(kind) and isinstance(own, str) and is_text(own):
            kind = own  # hubedit's own facts; a benchmark names its groups
        kind = clean(kind)
        return Probe(prompt, answers, kind) if not is_blank(prompt) else None

    def _texts(self, value: Any, at: str, form: Callable[[str], str]) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            text = self._string(value, at, form)
            return (text,) if text and not is_blank(text) else ()
        found: list[str] = []
        for number, item in enumerate(value):
            if self.strict or not isinstance(item, list):
                given = item is not None or self.strict
                text = self._string(item, f"{at}[{number}]", form) if given else ""
                found += [text] if text and not is_blank(text) else []
            else:
                found += self._texts(item, f"{at}[{number}]", form)
        return tuple(dict.fromkeys(found))

    def _string(self, value: Any, at: str, form: Callable[[str], str] = clean) -> str | None:
        """The value in its form; None, with the fault noted, where it is no string."""
        if not self.strict and type(value) in (int, float):
            value = str(value)
        if not isinstance(value, str):
            self.problems.append(f'"{at}" is {_kind(value)}; it must be a string in double quotes')
            return None
        if not is_text(value):
            self.problems.append(f'"{at}" holds half a surrogate pair, which is no character; retype it')
            return None
        return form(value)

    def _misspelt(self, key: str) -> bool:
        """Whether an unknown field was already reported as this one."""
        return any(f'did you mean "{key}"?' in problem for problem in self.problems)


_PROBE_EXAMPLE = 'write "{0}": [{{"prompt": "...", "answer": "...", "type": "..."}}]'


def _unknown(key: str, keys: tuple[str, ...], where: str = "") -> str:
    near = difflib.get_close_matches(key, keys, n=1)
    mend = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(keys)}"
    return f'unknown field "{key}"{where}; {mend}'


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
