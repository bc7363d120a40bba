"""A Python process whose Hub is the loopback one, and which runs what it is told, line by line."""

import json
import os
from pathlib import Path
from typing import Any

import warm

SERVE = """
import contextlib, io, json, os, sys, traceback
answers, scope = os.fdopen(os.dup(1), "w"), {}
for line in open(sys.argv[1]):
    error, text = None, io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            exec(json.loads(line), scope)
        except BaseException:
            error = traceback.format_exc()
    answer = {"value": scope.pop("value", None), "error": error, "text": text.getvalue()}
    print(json.dumps(answer), file=answers, flush=True)
"""


def server_for(url: str, home: Path) -> warm.Server:
    """What clients of the Hub at `url` are forked from."""
    return warm.Server(
        HF_ENDPOINT=url,
        HF_HOME=str(home),
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )


class Client:
    """Call it with Python source; it returns what the source assigned to `value`. `text` is what it printed."""

    def __init__(self, server: warm.Server, home: Path, token: str | None = "hf_owner"):
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_MODULES_CACHE": str(home / "modules"),
        }
        environment.pop("HF_TOKEN", None)
        if token is not None:
            environment["HF_TOKEN"] = token
        self.text = ""
        os.mkfifo(home / "told")
        self.process = warm.start(SERVE, home / "told", env=environment, cwd=home, server=server)
        self.told = (home / "told").open("w")

    def tell(self, source: str) -> None:
        self.told.write(json.dumps(source) + "\n")
        self.told.flush()

    def __call__(self, source: str) -> Any:
        self.tell(source)
        answer = json.loads(self.process.stdout.readline())
        self.text = answer["text"]
        assert answer["error"] is None, answer["error"]
        return answer["value"]

    def smt_hf(self, *words: object) -> int:
        """Run the command line; the exit code."""
        return self(f"from smt_hf.cli import main\nvalue = main({[str(word) for word in words]!r})")

    def close(self) -> None:
        self.told.close()
        self.process.kill()
        self.process.communicate()
