"""Talk to a model: it answers, or goes on with your text, and remembers all of it in one state."""

import argparse
import copy
import sys
from typing import Any

from .generate import add_sampling_arguments, go_on, ids_of, sampling, whole_state
from .loading import add_model_arguments, new_file, plain_console

HELP = """\
/save FILE   keep the state in a file
/load FILE   go on from a state in a file
/fork        set a mark here; /back returns to it, with all that was known then
/back        go back to the last mark
/reset       forget everything
/help        this list
/quit        end (or Ctrl-D)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, optional=True)
    parser.add_argument("--state", metavar="FILE", help="go on from the state in this file")
    add_sampling_arguments(parser, tokens=100)


def run(args: argparse.Namespace) -> int:
    import torch

    from .loading import load_model

    options = {"max_new_tokens": args.max_new_tokens, **sampling(args)}
    model, tokenizer = load_model(args)
    torch.manual_seed(args.seed or 0)
    talk = Talk(model, tokenizer, options)
    if args.state is not None:
        talk.load(args.state)
    talk.say("It has no chat template: it goes on with your text." * (tokenizer.chat_template is None))
    talk.say("/help lists what else you can type.")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return 0
        if line.strip() == "/quit":
            return 0
        try:
            talk.take(line)
        except (ValueError, OSError) as error:
            talk.say(str(error))


class Talk:
    """The state of a conversation, and marks to which it can return."""

    def __init__(self, model: Any, tokenizer: Any, options: dict[str, Any]):
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.console = plain_console()
        self.state: Any = None
        self.marks: list[Any] = []
        self.unread: list[int] = []  # the last token of an answer, which `generate` does not read

    def say(self, text: str) -> None:
        if text:
            self.console.print(text, style="dim", soft_wrap=True)

    def take(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if not word.startswith("/"):
            if line:
                self.answer(line)
            return
        commands = {"/save": self.save, "/load": self.load}
        plain = {"/fork": self.fork, "/back": self.back, "/reset": self.reset, "/help": lambda: self.say(HELP)}
        if word in commands:
            if not rest.strip():
                raise ValueError(f"{word} needs a file; type {word} FILE.")
            commands[word](rest.strip())
        elif word in plain:
            plain[word]()
        else:
            raise ValueError(f"{word} is no command; /help lists them.")

    def answer(self, line: str) -> None:
        from transformers import TextStreamer

        text = line
        if self.tokenizer.chat_template is not None:
            said = [{"role": "user", "content": line}]
            text = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        ids = ids_of(self.tokenizer, text).to(self.model.device)
        if self.unread:
            ids = ids.new_tensor([self.unread + ids[0].tolist()])
        streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        out = go_on(self.model, ids, self.state, streamer=streamer, **self.options)
        self.state, self.unread = out.cache, out.sequences[0, -1:].tolist()
        self.show()

    def show(self) -> None:
        tokens, memory = int(self.state.get_seq_length()), self.state.layers[0].memory
        self.say(f"[{tokens:,} tokens read; the state is {memory.numel() * memory.element_size():,} bytes]")

    def save(self, path: str) -> None:
        target = new_file("the file", path)
        self.model.save_state(self._whole(), target)
        self.say(f"saved {target}")

    def _whole(self) -> Any:
        """The state with the last token read, so that the file knows all that was said."""
        import torch

        if self.unread:
            last = torch.tensor([self.unread], device=self.model.device)
            self.state, self.unread = whole_state(self.model, self.state, last), []
        return self.state

    def load(self, path: str) -> None:
        self.state, self.unread = self.model.load_state(path), []
        self.show()

    def fork(self) -> None:
        self.marks.append((copy.deepcopy(self.state), list(self.unread)))
        self.say(f"mark {len(self.marks)} set")

    def back(self) -> None:
        if not self.marks:
            raise ValueError("there is no mark; set one with /fork.")
        state, unread = self.marks[-1]
        self.state, self.unread = copy.deepcopy(state), list(unread)
        self.say(f"back at mark {len(self.marks)}")

    def reset(self) -> None:
        self.state, self.unread = None, []
        self.say("everything is forgotten")
