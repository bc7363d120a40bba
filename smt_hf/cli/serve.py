"""Serve a model on an OpenAI-compatible API: completions, chat and responses, many at once in one batch."""

import argparse
import asyncio
import errno
import gc
import os
import re
import signal
import socket
import sys
from importlib.util import find_spec
from typing import Any

from .flags import add_number
from .loading import add_model_arguments

DRAIN_SECONDS = 30.0  # that answers under way have to end in, after SIGTERM
KEY = "SMT_HF_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--host", default="localhost", help="address to listen on [localhost]")
    add_number(parser, "--port", int, default=8000, at_least=1, at_most=65535, help="port to listen on [8000]")
    parser.add_argument(
        "--allowed-hosts", nargs="+", default=[], metavar="NAME",
        help="names beside --host that clients may ask by",
    )  # fmt: skip
    parser.add_argument(
        "--cors", nargs="+", default=[], metavar="ORIGIN", help="pages that may use it, https://a.b say; *: all"
    )  # fmt: skip
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"what clients must send [the variable {KEY}, or none]"
    )
    add_number(parser, "--max-batch", int, default=64, at_least=1, at_most=65536, help="texts at once [64]")
    add_number(
        parser, "--max-queue", int, default=256, at_least=1, at_most=2**20, help="texts that may wait [256]"
    )  # fmt: skip
    add_number(
        parser, "--threads", int, default=None, at_least=1, at_most=4096, help="of PyTorch [half the cores]"
    )
    parser.add_argument(
        "--state", metavar="FILE", help="a state, from `smt-hf generate --save-state`, to begin with"
    )
    parser.add_argument(
        "--state-store", default="memory", metavar="WHERE",
        help="where conversations are kept: memory, sqlite:///FILE, redis://HOST:PORT/0, or none [memory]",
    )  # fmt: skip
    add_number(
        parser, "--max-store-bytes", int, default=None, at_least=2**16, at_most=2**60,
        help="of memory or file [1 GiB]",
    )  # fmt: skip
    add_number(parser, "--max-tokens", int, default=4096, at_least=1, at_most=2**31, help="of an answer [4096]")
    add_number(
        parser, "--max-prompt", int, default=131072, at_least=1, at_most=2**31, help="of a prompt [131072]"
    )  # fmt: skip
    add_number(
        parser, "--max-seconds", float, default=300.0, above=0, at_least=0, at_most=1e9,
        help="most seconds of an answer [300]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if find_spec("uvicorn") is None:
        raise ValueError("serving needs uvicorn; run: pip install 'smt-hf[serve]'.")
    from smt_hf.serving.stores import open_store

    from .loading import check_model_path

    key = key_of(args.api_key)
    args.cors = [origin_of(given) for given in args.cors]
    for name in args.allowed_hosts:
        check_host(name)
    if args.max_store_bytes is not None and not args.state_store.startswith(("memory", "sqlite:")):
        raise ValueError("--max-store-bytes is for --state-store memory or sqlite:///FILE; leave it out.")
    check_model_path(args.model)
    sockets = listening(args.host, args.port)  # a port in use is known before a model is loaded
    most = {} if args.max_store_bytes is None else {"max_bytes": args.max_store_bytes}
    try:
        store = None if args.state_store == "none" else open_store(args.state_store, **most)
        serve(args, sockets, store, key)
    finally:
        close(sockets)
    return 0


def serve(args: argparse.Namespace, sockets: list[socket.socket], store: Any, key: str | None) -> None:
    import uvicorn

    from smt_hf.serving.engine import Engine
    from smt_hf.serving.gate import LOCAL, Gate, Limits
    from smt_hf.serving.openai_api import OpenAIApi

    from .loading import load_model

    model, tokenizer = load_model(args)
    if not tokenizer.is_fast:
        raise ValueError("the tokenizer is none of the `tokenizers` library, and the server reads no other.")
    state = None if args.state is None else model.load_state(args.state)
    limits = Limits(tokens=args.max_tokens, prompt=args.max_prompt, seconds=args.max_seconds)
    # The thread of the engine gives way to that of the connections more often than every 5 ms.
    sys.setswitchinterval(0.0005)
    threads = args.threads or max(1, (os.cpu_count() or 2) // 2)  # the others serve the connections
    engine = Engine(
        model,
        max_batch=args.max_batch,
        max_queue=args.max_queue,
        threads=threads,
        store=store,
        start_state=state,
    )
    gate = Gate(
        OpenAIApi(engine, tokenizer, args.model, limits), args.model,
        hosts=[*LOCAL, args.host, *args.allowed_hosts], limits=limits, key=key, origins=args.cors,
    )  # fmt: skip

    class Server(uvicorn.Server):
        def handle_exit(self, number: int, frame: Any) -> None:
            """SIGTERM lets answers under way end; Ctrl-C, or a second signal, does not."""
            if number == signal.SIGTERM and not gate.closing:
                gate.closing = True
                asyncio.get_running_loop().create_task(drained(self, gate))
            else:
                super().handle_exit(number, frame)

    gc.collect()
    gc.freeze()  # what is loaded stays: later collections look at requests alone, and are short
    config = uvicorn.Config(gate, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    print(f"serving {args.model} on http://{args.host}:{args.port}/v1", file=sys.stderr)
    try:
        Server(config).run(sockets=sockets)
    finally:
        engine.close()


def key_of(given: str | None) -> str | None:
    """What clients must send. Raises ValueError for an empty key, which everybody would have."""
    name, key = (KEY, os.environ.get(KEY)) if given is None else ("--api-key", given)
    if key is not None and not key.strip():
        raise ValueError(f"{name} is empty; give a key, or leave it out.")
    return key


def origin_of(given: str) -> str:
    """What a browser calls the pages that are meant. Raises ValueError for what it calls none."""
    origin = given.lower()
    pattern = r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?"
    if not re.fullmatch(pattern, origin):
        raise ValueError(
            f"--cors is {given!r}; it must be * or SCHEME://HOST[:PORT] without a path, https://a.b say."
        )
    # A browser leaves out the port that its scheme has anyway.
    return origin.removesuffix(":80" if origin.startswith("http:") else ":443")


def check_host(name: str) -> None:
    """Raise ValueError for what no client asks by: the gate compares names without their ports."""
    from smt_hf.serving.gate import is_address

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) and not is_address(name):
        raise ValueError(f"--allowed-hosts is {name!r}; it must be a name alone, without scheme and port.")


async def drained(server: Any, gate: Any) -> None:
    """End the server when nobody waits for an answer any more, or has waited long enough."""
    for _ in range(int(DRAIN_SECONDS / 0.05)):
        if not gate.waiting:
            break
        await asyncio.sleep(0.05)
    server.should_exit = True


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets on all addresses of a name. Raises OSError for a port in use, and for what is no address here."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise OSError(f"--host {host} is no address; use localhost, or one of this machine.") from None
    sockets: list[socket.socket] = []
    refused = None
    for family, kind, protocol, _, address in found:
        try:
            one = socket.socket(family, kind, protocol)
        except OSError as error:  # a kind of address that this machine does not have
            refused = error
            continue
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen()
            sockets.append(one)
        except OSError as error:
            one.close()
            refused = error
            if error.errno == errno.EADDRINUSE:
                close(sockets)
                raise OSError(
                    f"--port {port} of {host} is in use; choose another, or end what uses it."
                ) from None
    if not sockets:
        raise OSError(f"--host {host} with --port {port} cannot be listened on: {refused}.")
    return sockets


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
