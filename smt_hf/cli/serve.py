"""Serve a model on an OpenAI-compatible API: completions, and chat where the tokenizer has a chat template."""

import argparse
import errno
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from .flags import add_number
from .loading import add_model_arguments

NEEDED = ("fastapi", "openai", "pydantic", "uvicorn")

# A model that only continues text has no roles to speak in, so chat is refused rather than made up.
REFUSE_CHAT = (
    "{{ raise_exception('this model has no chat template; send the text to be continued to /v1/completions, "
    "or set tokenizer.chat_template and save it with the model.') }}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--host", default="localhost", help="address to listen on [localhost]")
    add_number(parser, "--port", int, default=8000, at_least=1, at_most=65535, help="port to listen on [8000]")
    parser.add_argument(
        "--allowed-hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names beside --host that clients may ask by",
    )
    add_number(parser, "--max-tokens", int, default=4096, at_least=1, help="most tokens of an answer [4096]")
    add_number(
        parser, "--max-prompt", int, default=131072, at_least=1, at_most=2**31,
        help="most tokens of a prompt [131072]",
    )  # fmt: skip
    add_number(
        parser, "--max-seconds", float, default=300.0, above=0, at_least=0, at_most=1e9,
        help="most seconds of writing an answer [300]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {', '.join(missing)}; run: pip install 'smt-hf[serve]'.")
    from .loading import check_model_path

    check_model_path(args.model)
    sockets = listening(args.host, args.port)  # a port in use is known before a model is loaded
    try:
        serve(args, sockets)
    finally:
        close(sockets)
    return 0


def serve(args: argparse.Namespace, sockets: list[socket.socket]) -> None:
    from smt_hf.serving.gate import LOCAL, Gate, Limits

    from .loading import load_model

    model, tokenizer = load_model(args)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = REFUSE_CHAT
    # The API's default is to sample; `temperature` would be ignored otherwise, and 0 is greedy.
    if model.generation_config.do_sample is None:
        model.generation_config.do_sample = True
    limits = Limits(tokens=args.max_tokens, prompt=args.max_prompt, seconds=args.max_seconds)
    hosts = [*LOCAL, args.host, *args.allowed_hosts]
    server = server_of(args.model, model, tokenizer)
    config = server.server.config
    gate = Gate(config.app, args.model, hosts, limits, lambda text: len(tokenizer(text)["input_ids"]))
    model.generate = answered(model.generate, gate)
    config.app = gate
    config.timeout_graceful_shutdown = 1  # Ctrl-C does not wait for answers that are being written
    print(f"serving {args.model} on http://{args.host}:{args.port}/v1", file=sys.stderr)
    try:
        server.server.run(sockets=sockets)
    finally:
        for asked in gate.requests.values():
            asked.gone.set()
        server.reset_loaded_models()  # a timer of it would keep the process alive


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


def server_of(name: str, model: Any, tokenizer: Any) -> Any:
    """The server of `transformers`, not started, with this model and no other."""
    import transformers
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError
    from transformers.cli.serve import Serve
    from transformers.cli.serving import model_manager as of_the_library

    from smt_hf import SMTForCausalLM
    from smt_hf.serving.gate import REQUEST

    # The server looks a model's class up by its name, in `transformers` alone.
    transformers.SMTForCausalLM = SMTForCausalLM  # type: ignore[attr-defined]

    class Loaded(of_the_library.ModelManager):
        """Has the model that `load_model` read and checked."""

        def _load_processor(self, *_: Any, **__: Any) -> Any:
            return tokenizer

        def _load_model(self, *_: Any, **__: Any) -> Any:
            return model

        def list_models(self, cache_dir: str | None = None) -> list[dict]:
            """Clients ask for the list before anything else; by itself it names what the Hub's cache holds."""
            return [{"id": name, "object": "model", "created": 0, "owned_by": "smt-hf"}]

        get_gen_models = list_models  # as transformers 5.23 calls it

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        """A request that the model or its tokenizer cannot take is the client's error, not the server's."""
        body = {"message": str(error), "type": "invalid_request_error"}
        return JSONResponse({"error": body}, status_code=400)

    class Server(Serve):
        def start_server(self) -> None:
            """Called when all routes are made: it starts later, behind the gate."""

    module: Any = of_the_library  # the server imports the class when it is made
    before = module.ModelManager
    module.ModelManager = Loaded
    try:
        server: Any = Server(name, device=str(model.device), non_blocking=True)
    finally:
        module.ModelManager = before
    app: Any = server.server.config.app
    for error in (ValueError, TemplateError):
        app.add_exception_handler(error, refuse)
    for handler in (server._completion_handler, server._chat_handler):
        handler._validate_request = lambda body: None  # the gate did
        handler._build_generation_config = handing_on(handler._build_generation_config, REQUEST)
    return server


def handing_on(build: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`_build_generation_config` of a handler, which hands the request on to `answered`."""

    def handed_on(body: dict[str, Any], *args: Any, **options: Any) -> Any:
        config = build(body, *args, **options)
        setattr(config, name, body[name])
        return config

    return handed_on


def answered(generate: Callable[..., Any], gate: Any) -> Callable[..., Any]:
    """`model.generate` for one request after another, each with its seed and limits, while its client stays."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, StopStringCriteria

    from smt_hf.serving.gate import REQUEST, Asked

    class Limit(StoppingCriteria):
        def __init__(self, asked: Asked):
            self.asked, self.end = asked, time.monotonic() + gate.limits.seconds

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            if self.asked.gone.is_set():
                raise ValueError("the client left.")
            if time.monotonic() > self.end:
                raise ValueError(
                    f"the answer took more than {gate.limits.seconds:g} seconds; ask for fewer tokens."
                )
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def generate_for(*args: Any, generation_config: Any, tokenizer: Any, **inputs: Any) -> Any:
        # A client that left while it waited is no longer among the requests.
        asked = gate.requests.get(generation_config.__dict__.pop(REQUEST))
        if asked is None or asked.gone.is_set():
            raise ValueError("the client left.")
        if (count := inputs["input_ids"].shape[-1]) > gate.limits.prompt:
            raise ValueError(f"the prompt has {count:,} tokens; this server reads {gate.limits.prompt:,}.")
        torch.manual_seed(asked.seed)
        criteria = StoppingCriteriaList([Limit(asked)])
        if stops := generation_config.stop_strings:
            criteria.append(StopStringCriteria(tokenizer, stops))
            generation_config.stop_strings = None
        return generate(*args, generation_config=generation_config, stopping_criteria=criteria, **inputs)

    return generate_for
