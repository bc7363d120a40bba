"""Python processes that start at once: forked from one that has imported the libraries, and nothing of ours.

Importing torch and transformers takes seconds of a core, and a test of processes starts up to six. What a
library reads from the environment when it is imported is that of the server, the caches of the Hub excepted.
"""

import atexit
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = (
    *("torch", "torch.distributed.fsdp", "torch._dynamo", "transformers", "transformers.modeling_utils"),
    *("transformers.generation.utils", "transformers.models.auto.modeling_auto", "accelerate", "datasets"),
    *("transformers.tokenization_utils_tokenizers", "transformers.models.auto.tokenization_auto", "tqdm.auto"),
    *("safetensors.torch", "rich.console", "rich.table", "yaml"),
)
WIDTH = 10  # of a number in a message


class Server:
    """The process that imports the libraries and is forked. more: of its environment, beside the tests'."""

    def __init__(self, **more: str):
        self.requests, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}
        with there:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno())], pass_fds=[there.fileno()], env=environment,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def close(self) -> None:
        self.requests.close()
        self.process.wait()


@cache
def the_server() -> Server:
    server = Server()
    atexit.register(server.close)
    return server


class Process:
    """As `subprocess.Popen`, of text: `pid`, `stdout`, `returncode` once it has ended."""

    def __init__(self, pid: int, out: int, err: Any, status: int):
        self.pid, self._err, self._status = pid, err, status
        self.returncode: int | None = None
        self.stdout: io.TextIOBase = os.fdopen(out, encoding="utf-8")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def lives(self) -> bool:
        return self.returncode is None and not select.select([self._status], [], [], 0)[0]

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(os.read(self._status, WIDTH))
            os.close(self._status)
        return self.returncode

    def stderr(self) -> str:
        self._err.seek(0)
        return self._err.read().decode("utf-8", "replace")

    def communicate(self) -> tuple[str, str]:
        """Wait for its end: what it wrote, from here on, and all that it wrote as errors."""
        with self.stdout, self._err:
            out = self.stdout.read()
            self.wait()
            return out, self.stderr()


def start(
    program: str | Path,
    *words: object,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
    server: Server | None = None,
) -> Process:
    """Start a program, its source or its file, with these words as its command line.

    env: all of its environment, that of this process by default.
    """
    # Where a test of this process has had code of checkpoints put, others would be found under the same names.
    path = [folder for folder in sys.path if not Path(folder, "transformers_modules").is_dir()]
    request = {
        "file": str(program) if isinstance(program, Path) else None, "source": str(program),
        "words": [str(word) for word in words], "env": dict(os.environ) if env is None else env,
        "cwd": str(cwd or Path.cwd()), "new_session": new_session, "path": [str(REPOSITORY), *path],
    }  # fmt: skip
    out, out_there = os.pipe()
    status, status_there = os.pipe()
    err = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `communicate`
    with tempfile.TemporaryFile() as message:
        message.write(json.dumps(request).encode())
        message.flush()
        there = [message.fileno(), out_there, err.fileno(), status_there]
        socket.send_fds((server or the_server()).requests, [b"."], there)
        os.close(out_there)
        os.close(status_there)
        pid = int(os.read(status, WIDTH))  # its exit code follows when it has ended
    return Process(pid, out, err, status)


def run(program: str | Path, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Start a program and wait for its end."""
    process = start(program, *words, **options)
    out, err = process.communicate()
    return subprocess.CompletedProcess([str(word) for word in words], process.wait(), out, err)


def ranks(
    program: str | Path, *words: object, env: dict[str, str] | None = None, **options: Any
) -> list[Process]:
    """Two processes that find one another, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        start(
            program,
            *words,
            env={**(env or os.environ), **together, "RANK": rank, "LOCAL_RANK": rank},
            **options,
        )
        for rank in ("0", "1")
    ]


# ---------------------------------------------------------------- in the server


def serve(requests: socket.socket) -> None:
    import gc
    import importlib

    for name in LIBRARIES:
        with suppress(ImportError):  # of another version, which has it elsewhere
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a program ends by itself
    while True:
        _, fds, _, _ = socket.recv_fds(requests, 1, 4)
        if not fds:
            return
        if os.fork() == 0:
            requests.close()
            attend(*fds)
        for fd in fds:
            os.close(fd)


def attend(message: int, out: int, err: int, status: int) -> None:
    """Fork a program, say its id, wait for its end, and say its exit code: −n for a signal n."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        os.close(status)
        code = 1
        try:
            code = execute(message, out, err)
        finally:
            os._exit(code)
    for fd in (message, out, err):
        os.close(fd)
    os.write(status, f"{pid:{WIDTH}}".encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended):{WIDTH}}".encode())
    os._exit(0)


def execute(message: int, out: int, err: int) -> int:
    """Become the program; its exit code."""
    import runpy

    with open(message, "rb") as file:
        file.seek(0)
        request = json.loads(file.read())
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    encoding = request["env"].get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding) for number in (1, 2))
    if request["new_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    given = request["env"].get("PYTHONPATH", "").split(":")
    sys.path[:] = [*(path for path in given if path), *request["path"]]
    if folder := request["env"].get("HF_MODULES_CACHE"):
        import transformers.dynamic_module_utils as modules

        modules.HF_MODULES_CACHE = folder
    if folder := request["env"].get("HF_HUB_CACHE"):
        from huggingface_hub import constants

        constants.HF_HUB_CACHE = folder
    code = 0
    try:
        if request["file"]:
            sys.argv = [request["file"], *request["words"]]
            sys.path.insert(0, str(Path(request["file"]).parent))
            runpy.run_path(request["file"], run_name="__main__")
        else:
            sys.argv = ["-c", *request["words"]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(request["source"], "<string>", "exec"), vars(sys.modules["__main__"]))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
