"""A Python process whose Hub is the loopback one, and which runs what it is told, line by line.

The client library reads its address and its cache when it is imported, so one process serves one Hub; and
importing takes seconds, so one process serves many tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
SERVE = """
import contextlib, io, json, os, sys, traceback
answers, scope = os.fdopen(os.dup(1), "w"), {}
for line in sys.stdin:
    error, text = None, io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            exec(json.loads(line), scope)
        except BaseException:
            error = traceback.format_exc()
    answer = {"value": scope.pop("value", None), "error": error, "text": text.getvalue()}
    print(json.dumps(answer), file=answers, flush=True)
"""


class Client:
    """Call it with Python source; it returns what the source assigned to `value`. `text` is what it printed."""

    def __init__(self, url: str, home: Path, token: str | None = "hf_owner"):
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        environment.pop("HF_TOKEN", None)
        if token is not None:
            environment["HF_TOKEN"] = token
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=home,
        )

    def tell(self, source: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()

    def __call__(self, source: str) -> Any:
        self.tell(source)
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        self.text = answer["text"]
        assert answer["error"] is None, answer["error"]
        return answer["value"]

    def smt_hf(self, *words: object) -> int:
        """Run the command line; the exit code."""
        return self(f"from smt_hf.cli import main\nvalue = main({[str(word) for word in words]!r})")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
