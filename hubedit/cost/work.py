"""What an edit computes, counted; and what each of these things costs on a machine."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Work:
    """Amounts of work. `tokens`: tokens of large passes, by the blocks that they go through; `gradients`: the
    same, forward and backward; `steps`: steps of generation, by their blocks; `rows`: the same by the rows
    that take the step; `calls`: passes of whatever size; `heads`: products with the head, of whatever size,
    and `entries`: positions in them by entries of the vocabulary; `single`, `double`: floating-point
    operations of products in float32 and float64; `seconds`: what does not depend on the model."""

    tokens: float = 0.0
    gradients: float = 0.0
    steps: float = 0.0
    rows: float = 0.0
    calls: float = 0.0
    heads: float = 0.0
    entries: float = 0.0
    single: float = 0.0
    double: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, times: float) -> Work:
        return Work(**{f.name: getattr(self, f.name) * times for f in fields(self)})

    __rmul__ = __mul__

    @property
    def passed(self) -> float:
        """Tokens that go forward through a block, in whatever way."""
        return self.tokens + self.gradients + self.rows

    def at(self, speed: Work) -> float:
        """Seconds, where `speed` holds those of one of each (`hubedit.cost.speed.measure`)."""
        return sum(float(getattr(self, f.name) * getattr(speed, f.name)) for f in fields(self))
