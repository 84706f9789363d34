"""From a figure to bytes: PNG for the Hub, SVG that takes the page's colours for the HTML report.

matplotlib is imported when a figure is made.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hubedit.errors import HubEditError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: distinct under every kind of colour blindness, and seen on white and on black
ORANGE, BLUE, GREEN, PINK = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def figure(width: float, height: float) -> Figure:
    """An empty figure in inches, outside pyplot: no global state, no window system. Raises HubEditError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HubEditError("figures need matplotlib", "pip install matplotlib") from error
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def png(draw: Callable[[], Figure]) -> bytes:
    """The figure on white; the same figure gives the same bytes."""
    target = io.BytesIO()
    with _plain_text():
        # without the software's version the bytes depend on the figure alone
        draw().savefig(target, format="png", dpi=150, metadata={"Software": None})
    return target.getvalue()


def svg(draw: Callable[[], Figure], name: str) -> str:
    """The figure as an inline `<svg>` whose black is the text colour of the page around it.

    `name` keeps its ids apart from those of other figures in the page; it is one word.
    """
    target = io.StringIO()
    with _plain_text():
        import matplotlib

        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            draw().savefig(target, format="svg", dpi=150, transparent=True, metadata=nothing)
    text = target.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("#000000", "currentColor")
    # text without a colour is black, wherever it stands
    narrow = re.search(r'width="([\d.]+)pt"', text)
    least = f"min({0.75 * float(narrow[1]):.0f}pt, 34rem)" if narrow else "34rem"
    head = f'<svg fill="currentColor" aria-hidden="true" style="min-width: {least}" '
    text = text.replace("<svg ", head, 1)
    return _ID.sub(rf"\g<1>{name}-", text)


@contextmanager
def _plain_text() -> Iterator[None]:
    """A dollar sign in a prompt is no formula; a script that the font lacks is no reason to warn."""
    try:
        import matplotlib
    except ImportError as error:
        raise HubEditError("figures need matplotlib", "pip install matplotlib") from error
    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield
