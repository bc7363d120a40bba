"""Serve a model on an OpenAI-compatible API: completions, and chat where the tokenizer has a chat template."""

import argparse
import sys
from importlib.util import find_spec
from typing import Any

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
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [8000]")


def run(args: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {', '.join(missing)}; run: pip install 'smt-hf[serve]'.")
    if not 0 < args.port < 65536:
        raise ValueError(f"--port is {args.port}; it must be between 1 and 65535.")
    from smt_hf.runs.own_cell import use_cell

    from .loading import check_model_path

    if args.cell:
        use_cell(args.cell)
    check_model_path(args.model)
    import torch
    import transformers
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError
    from transformers.cli.serve import Serve

    from smt_hf import SMTForCausalLM

    # The server looks a model's class up by its name, in `transformers` alone.
    transformers.SMTForCausalLM = SMTForCausalLM  # type: ignore[attr-defined]

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        """A request that the model or its tokenizer cannot take is the client's error, not the server's."""
        body = {"message": str(error), "type": "invalid_request_error"}
        return JSONResponse({"error": body}, status_code=400)

    class Server(Serve):
        def start_server(self):
            """Called with the model loaded and all routes made: what is different here, then serve."""
            manager: Any = self._model_manager
            (loaded,) = manager.loaded_models.values()
            if loaded.processor.chat_template is None:
                loaded.processor.chat_template = REFUSE_CHAT
            # The API's default is to sample; `temperature` would be ignored otherwise, and 0 is greedy.
            if loaded.model.generation_config.do_sample is None:
                loaded.model.generation_config.do_sample = True
            # Clients ask for the list before anything else; by itself it names what the Hub's cache holds.
            entry = {"id": args.model, "object": "model", "created": 0, "owned_by": "smt-hf"}
            manager.get_gen_models = lambda: [entry]
            app: Any = self.server.config.app
            for error in (ValueError, TemplateError):
                app.add_exception_handler(error, refuse)
            print(f"serving {args.model} on http://{args.host}:{args.port}/v1", file=sys.stderr)
            self.server.run()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    Server(args.model, device=device, host=args.host, port=args.port, non_blocking=True)
    return 0
