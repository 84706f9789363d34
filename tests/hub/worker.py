"""A client process that runs one `hubedit` command line after the other, so that torch is imported once.

The Hub's address and the cache are read when huggingface_hub is imported, so they are the process's own;
the token, and offline mode, may differ from one command to the next. Waiting between tries is cut short.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Reads requests as lines of JSON from stdin, answers with lines of JSON on stdout."""
    from huggingface_hub import constants

    from hubedit.cli.app import run

    answers, wait = sys.stdout, time.sleep
    time.sleep = lambda seconds: wait(min(float(seconds), 0.01))
    for text in sys.stdin:
        request: dict[str, Any] = json.loads(text)
        os.environ.pop("HF_TOKEN", None)
        if request["token"]:
            os.environ["HF_TOKEN"] = request["token"]
        constants.HF_HUB_OFFLINE = request["offline"]
        if request["endpoint"]:
            constants.ENDPOINT = request["endpoint"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(request["words"])
        print(
            json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), file=answers, flush=True
        )


if __name__ == "__main__":
    main()
