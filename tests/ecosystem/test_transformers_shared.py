"""The modelling tests that `transformers` shares among its models hold for both classes.

They come with its source distribution, are downloaded where they run, and are no part of this repository.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers
from tiny_checkpoints import needs

pytestmark = [*needs("parameterized", "peft"), pytest.mark.timeout(900)]

HERE = Path(__file__).parent
# Modules that the shared tests import and the distribution may leave out: the class that they want of each.
LEFT_OUT = {
    "exporters/test_export.py": "ExportTesterMixin",
    "generation/test_utils.py": "GenerationTesterMixin",
}

# Why a shared test does not run, and the beginnings of the names of such tests. Nothing else may be skipped.
SKIPPED = {
    "ours, see smt_in_shared_tests.py": "test_bc_cache_name_forward test_feed_forward_chunking",
    "a memory has no attention weights, no attention kernel to choose and no sliding window": """
        test_attention_outputs test_attn_implementation test_can_set_attention_dynamically test_eager_matches
        test_flash_attn test_flex_attention test_sdpa test_sliding_window_mask""",
    "images, sound, several models in one, encoder and decoder, experts": """
        test_encoder_decoder test_internal_model_config_and_subconfig test_moe_models test_multimodal_outputs
        test_output_router_logits""",
    "rotary embeddings of other types are refused": "test_model_rope test_vision_axial_rope",
    "forward returns the hidden states itself, no hooks record them": "test_can_capture test_capture_outputs",
    "no weights stay in float32 by name, are renamed on loading or sharded by plan": """
        test_can_load_from_already_mapped_keys test_keep_in_fp32_modules test_reverse_loading_mapping
        test_tied_head_has_a_tp_plan_entry test_tp_plan""",
    "no table of positions": "test_resize_position_vector_embeddings",
    "for models of the transformers team's choice": "test_can_init_all_missing_weights",
    "slow, or wants a GPU, several of them, DeepSpeed, bitsandbytes or kernels": """
        test_can_load_with_device_context_manager test_can_load_with_global_device_set test_cpu_offload
        test_disk_offload test_kernels_can_load test_model_parallelism test_resize_embeddings_untied_with
        test_resize_tokens_embeddings_with test_torch_compile_for_training""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests of this version of `transformers`, ready to be imported as `tests`."""
    folder = tmp_path_factory.mktemp("transformers")
    name = f"transformers=={transformers.__version__}"
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers", name]
    run = subprocess.run([*words, "-d", str(folder)], capture_output=True, text=True, timeout=600)
    if run.returncode:
        pytest.skip(f"{name} could not be downloaded as source: {run.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        inside = [m for m in file.getmembers() if m.name.split("/")[1:2] == ["tests"]]
        file.extractall(folder, inside, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz") / "tests"
    if not (unpacked / "test_modeling_common.py").is_file():
        pytest.skip(f"the source distribution of {name} holds no tests/test_modeling_common.py")
    unpacked.rename(folder / "tests")
    for module, mixin in LEFT_OUT.items():
        path = folder / "tests" / module
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"class {mixin}: ...\n")
    for package in {path.parent for path in (folder / "tests").rglob("*.py")}:
        (package / "__init__.py").touch()
    return folder


def test_both_classes_pass_the_shared_tests(folder):
    report, repository = folder / "report.xml", HERE.parents[1]
    (folder / "pytest.ini").write_text("[pytest]\n")
    path = os.pathsep.join([str(folder), str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(folder / "pytest.ini")]
    run = subprocess.run(
        [sys.executable, *words, f"--junitxml={report}", str(HERE / "smt_in_shared_tests.py")],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = {
        case.attrib["name"]: case[0].attrib["message"] for case in cases if case.find("skipped") is not None
    }
    known = tuple(prefix for prefixes in SKIPPED.values() for prefix in prefixes.split())
    assert {name: reason for name, reason in skipped.items() if not name.startswith(known)} == {}
    assert len({case.attrib["name"] for case in cases} - skipped.keys()) > 60
