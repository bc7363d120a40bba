"""Every name that we reach in other libraries without a promise that it stays: here, or in `RELIED_ON`.

A failure names what a new release has taken away, before some test far from it fails for reasons hard to see.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import smt_hf
from smt_hf import SMTConfig, SMTForCausalLM, SMTModel, SMTTeacher
from smt_hf.models.compiled_step import CPU_OPTIONS
from smt_hf.models.library_names import RELIED_ON, find

PACKAGE = Path(smt_hf.__file__).parent


def generation_config() -> Any:
    """What `generate` hands to its loops."""
    seen: list[Any] = []

    class Watched(SMTForCausalLM):
        def _sample(self, input_ids, logits_processor, stopping_criteria, generation_config, *args, **kwargs):
            seen.append(generation_config)
            return super()._sample(
                input_ids, logits_processor, stopping_criteria, generation_config, *args, **kwargs
            )

    config = SMTConfig(vocab_size=8, hidden_size=8, num_attention_heads=1, pad_token_id=0)
    Watched(config).generate(torch.ones(1, 2, dtype=torch.long), max_new_tokens=1)
    return seen[0]


def inductor() -> Any:
    import torch._inductor.config

    return torch._inductor.config


def weak_keys() -> Any:
    from torch.utils import weak

    return weak


def dispatch() -> Any:
    from torch.utils import _python_dispatch

    return _python_dispatch


# what it belongs to → (how to get at it, its private names)
ELSEWHERE: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "torch": (lambda: torch, ("_C", "_dynamo", "_inductor")),
    "torch._C": (lambda: torch._C, ("_functorch", "_is_torch_function_mode_enabled")),
    "torch._C._functorch": (lambda: torch._C._functorch, ("peek_interpreter_stack",)),
    "torch.nn.modules.module": (lambda: nn.modules.module, ("_has_any_global_hook",)),
    "torch._dynamo": (lambda: torch._dynamo, ("mark_static_address",)),
    "torch._inductor.config": (inductor, ("patch", *CPU_OPTIONS)),
    "torch.nn.Module": (
        nn.Module,
        (
            "_backward_hooks",
            "_backward_pre_hooks",
            "_compiled_call_impl",
            "_forward_hooks",
            "_forward_pre_hooks",
        ),
    ),
    "torch.ops.mkldnn": (lambda: torch.ops.mkldnn, ("_linear_pointwise", "_reorder_linear_weight")),
    "torch.utils._python_dispatch": (dispatch, ("TorchDispatchMode", "is_in_torch_dispatch_mode")),
    "torch.utils.weak": (weak_keys, ("WeakIdKeyDictionary",)),
    "transformers: the generation config of a running generate": (
        generation_config,
        ("_mask_length", "_pad_token_tensor", "_eos_token_tensor"),
    ),
    "transformers.GenerationMixin": (
        lambda: SMTForCausalLM,
        ("_get_logits_processor", "_prepare_generation_config", "_prepare_special_tokens"),
    ),
}
OWN = {"_replace"}  # of the standard library


def listed() -> set[str]:
    names = {name for _, owned in ELSEWHERE.values() for name in owned}
    return names.union(*RELIED_ON.values(), OWN)


@pytest.mark.parametrize(
    ("place", "name"), [(place, name) for place, (_, names) in ELSEWHERE.items() for name in names]
)
def test_the_name_is_there(place, name):
    owner = ELSEWHERE[place][0]()
    assert hasattr(owner, name), f"{place} has no {name} any more"


@pytest.mark.parametrize(
    ("place", "name"), [(place, name) for place, names in RELIED_ON.items() for name in names]
)
def test_the_name_that_a_checkpoint_relies_on_is_there(place, name):
    assert hasattr(find(place), name), f"transformers.{place} has no {name} any more"


def private_names_reached(root: Path) -> dict[str, str]:
    """Private attributes and modules that the code names and does not define: name → where."""
    defined: set[str] = set()
    reached: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    defined.add(node.attr)
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            for name in names:
                if name.startswith("_") and not name.startswith("__"):
                    reached.setdefault(name, f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}")
    return {name: where for name, where in reached.items() if name not in defined}


def test_no_private_name_is_reached_that_is_not_listed():
    modules = {part for place in ELSEWHERE for part in place.split(".")}
    found = {n: where for n, where in private_names_reached(PACKAGE).items() if n not in listed() | modules}
    assert found == {}


@pytest.mark.parametrize("cls", [SMTForCausalLM, SMTModel, SMTTeacher])
def test_no_private_method_of_a_library_is_overridden_that_is_not_listed(cls):
    ours = [base for base in cls.__mro__ if base.__module__.startswith("smt_hf")]
    theirs = [base for base in cls.__mro__ if base not in ours]
    private = {name for base in ours for name in vars(base) if name[0] == "_" and not name.startswith("__")}
    overridden = {name for name in private if any(name in vars(base) for base in theirs)}
    # `transformers` writes the last two into every class with weights of its own.
    assert overridden - listed() <= {"_abc_impl", "_auto_class", "_input_embed_layer"}


def test_the_finder_sees_what_a_file_reaches(tmp_path):
    (tmp_path / "a.py").write_text(
        "import torch._hidden\nfrom x._inner import y\nclass A:\n    _kept = 1\n"
        "    def _own(self):\n        self._own(); self._kept; b._foreign\n"
    )
    assert private_names_reached(tmp_path).keys() == {"_hidden", "_inner", "_foreign"}
