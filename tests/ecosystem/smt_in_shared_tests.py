"""SMTModel and SMTForCausalLM under the tests that `transformers` shares among its own models.

No test of ours: test_transformers_shared.py runs it beside the unpacked tests of `transformers`.
"""

import unittest
from typing import Any

import torch
from tests.generation.test_utils import GenerationTesterMixin  # type: ignore
from tests.test_modeling_common import ModelTesterMixin  # type: ignore
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from smt_hf import SMTConfig, SMTForCausalLM, SMTModel

# Where the tests look up which class has no loss. A model outside of the tree stands in another mapping.
MODEL_MAPPING_NAMES["smt"] = "SMTModel"


class SMTTester:
    """What the shared tests ask of the tester of a model."""

    batch_size, seq_length, vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 3, 7, 99, 32, 2, 4
    is_training = True

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> SMTConfig:
        return SMTConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_memory_tokens=4,
            num_readout_layers=1,
            intermediate_size=37,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[SMTConfig, dict[str, Any]]:
        ids = torch.randint(3, self.vocab_size, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class SMTModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (SMTModel, SMTForCausalLM)
    all_generative_model_classes = (SMTForCausalLM,)
    has_attentions = False

    def setUp(self) -> None:
        self.model_tester = SMTTester(self)

    @unittest.skip("the older name of the state is taken for good, so nothing warns of it")
    def test_bc_cache_name_forward(self) -> None: ...

    @unittest.skip("chunk_size_feed_forward is refused; a prompt is read in chunks of time instead")
    def test_feed_forward_chunking(self) -> None: ...
