"""The `hubedit` command: mounts one module a verb, and turns every error into one line.

A verb is a module `hubedit.cli.<verb>` that imports nothing heavy at module level and defines either
`app` (a `typer.Typer`, for a verb with sub-commands) or a function named like the verb. Its first
docstring line is the help text.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import hubedit
from hubedit.cli.errors import INTERRUPTED, report
from hubedit.cli.escape import guard_libraries
from hubedit.errors import ConfigError, HubEditError

# the base of what typer raises for a command line that it cannot read; it has no public name
UsageError: type[Any] = typer.BadParameter.__bases__[0]

# options of mallopt, from malloc.h: from which size on memory is mapped anew, and given back
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_MMAP_NAME, _TRIM_NAME = "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"  # the user's own word

VERBS = (
    "apply",
    "edit",
    "ask",
    "eval",
    "check",
    "bench",
    "tune",
    "report",
    "merge",
    "revert",
    "compose",
    "inspect",
    "diff",
    "extract",
    "trace",
    "stats",
    "demo",
    "doctor",
    "facts",
    "push",
    "pull",
    "log",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hubedit {hubedit.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also: HF_DEBUG=1).")
    ] = False,
) -> None:
    """Edit facts in Hugging Face causal language models; each edit is a PEFT LoRA adapter."""


def build(wanted: Collection[str] = VERBS) -> typer.Typer:
    """The command tree; of verbs that are not `wanted` only the name and the help line, without an import."""
    app = typer.Typer(
        name="hubedit",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # boxes cost every start a third of its time, and narrow terminals much text
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb in VERBS:
        source = Path(__file__).with_name(f"{verb}.py")
        if not source.is_file():
            continue
        if verb not in wanted:
            _outline(app, verb, source.read_text(encoding="utf-8"))
            continue
        module = import_module(f"hubedit.cli.{verb}")
        group = getattr(module, "app", None)
        if isinstance(group, typer.Typer):
            app.add_typer(group, name=verb)
        else:
            app.command(verb)(getattr(module, verb))
    return app


def _outline(app: typer.Typer, verb: str, source: str) -> None:
    """Mounts a verb for the list of commands only; a test holds it against the real one."""
    group = re.search(r'^app = typer\.Typer\(.*?help="(.*?)"', source, re.MULTILINE | re.DOTALL)
    if group is not None:
        app.add_typer(typer.Typer(help=group[1]), name=verb)
        return
    own = re.search(rf'^def {verb}\(.*?^    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
    app.command(verb, help=own[1] if own is not None else "")(lambda: None)


def run(arguments: Sequence[str], tree: typer.Typer | None = None) -> int:
    """Runs one command line and returns its exit code; errors are printed to stderr. `tree`: the commands,
    hubedit's own without one."""
    own, marker, rest = _split(arguments)
    debug = "--debug" in own or os.environ.get("HF_DEBUG", "").lower() in ("1", "true", "yes", "on")
    # --debug is accepted anywhere, because the hint asks to add it to the command that failed
    words = [word for word in own if word != "--debug"] + marker + rest
    try:
        verb = next((word for word in words if not word.startswith("-")), "")
        command = typer.main.get_command(tree or build([verb]))
        stop = command.main(args=words, prog_name="hubedit", standalone_mode=False)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except UsageError as error:
        if error.ctx is not None and type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error.format_message()}\n")
            return ConfigError.exit_code
        return report(_usage(error))
    except typer.Abort:  # a question was answered with no
        return report(HubEditError("not confirmed, so nothing was done", "answer y, or add --yes"))
    except BaseException as error:  # the outermost frame: everything ends as one line
        return report(error, debug=debug)
    # typer turns Ctrl-C into this code, and says nothing
    return report(KeyboardInterrupt()) if stop == INTERRUPTED else stop if isinstance(stop, int) else 0


def _usage(error: Any) -> ConfigError:
    """What typer says of a command line that it cannot read, in one line, and where to look."""
    message = " ".join(error.format_message().split()).rstrip(".").replace(": Value error, ", ": ")
    path = error.ctx.command_path if error.ctx is not None else "hubedit"
    return ConfigError(f"{message[:1].lower()}{message[1:]}", f"{path} --help")


def main() -> None:
    """Entry point of the `hubedit` script."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # read when torch is loaded: threads of GNU OpenMP that wait for one another spin for some microseconds
    # and then sleep. By default they go on spinning, and on a shared machine take the time of those that work
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if {"-q", "--quiet"} & set(sys.argv):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when the Hub's client is loaded
    guard_libraries()
    _keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character gets "?", not a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.exit(_run_together(sys.argv[1:]))
    code = run(sys.argv[1:])
    gc.freeze()  # the collection at the end would look at every object of the libraries: a second
    sys.exit(code)


def _keep_freed_memory() -> None:
    """Blocks of up to 2 GiB that are freed stay with this process, where its C library can be told so (glibc)
    and the user has said nothing else. By default every large tensor is made of fresh pages, which over a
    large vocabulary takes longer than the softmax itself (docs/performance.md)."""
    if sys.platform != "linux" or {_MMAP_NAME, _TRIM_NAME} & set(os.environ):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    # an old one refuses so large a threshold, and is then left as it is
    if set_option(_MMAP_THRESHOLD, 2**31 - 1):
        set_option(_TRIM_THRESHOLD, 2**31 - 1)


def _run_together(arguments: Sequence[str]) -> int:
    """Under torchrun: rank 0 runs the command line, the other processes help it and say nothing."""
    from hubedit.parallel import serve, team

    with team() as share:
        if share.rank == 0:
            return run(arguments)
        serve()
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The words before `--`, the `--` itself, and the words after it."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]
