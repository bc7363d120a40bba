"""Push, load and refuse, with the real client against a Hub on the loopback interface."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from hub_client import Client, server_for
from loopback_hub import TOKENS, LoopbackHub, Repository
from safetensors.torch import load_file, save_file
from tiny_run import TINY, make_run, python_of
from transformers import LlamaConfig, LlamaForCausalLM

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.cli import main
from smt_hf.data import byte_tokenizer

RECIPE = Path(__file__).parents[2] / "docs" / "states.md"
CODE = {path.name for path in (Path(__file__).parents[2] / "smt_hf" / "models").glob("*.py")} - {"__init__.py"}
EXPECTED = CODE | {
    *("README.md", "run.json", "config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "teacher/config.json", "teacher/model.safetensors"),
}
PROMPT = [84, 104, 101, 32]
GENERATE = f"""
import torch
ids = model.generate(torch.tensor([{PROMPT}]), max_new_tokens=12, do_sample=False, num_beams=2)
value = [type(model).__module__, ids[0].tolist()]
"""


# Up to huggingface_hub 2.0 at least, the check of a card goes to the public Hub, whatever HF_ENDPOINT says.
CARDS_ARE_CHECKED_HERE = """
from huggingface_hub.utils import get_session
session = get_session()
def post(url, send=session.post, **options):
    return send(url.replace("https://huggingface.co", huggingface_hub.constants.ENDPOINT), **options)
session.post = post
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(run_folder, tmp_path / "tiny")


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    server = LoopbackHub()
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[warm.Server]:
    """Clients are forked from it: each has caches of its own, where nothing has been loaded before."""
    server = server_for(hub.url, tmp_path_factory.mktemp("home"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def client(server: warm.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(server, tmp_path_factory.mktemp("client"))
    # Failed requests are tried again after seconds that a test need not wait for.
    client("import time, os, huggingface_hub\ntime.sleep = lambda seconds: None")
    client(CARDS_ARE_CHECKED_HERE)
    client("import smt_hf")  # what libraries print when they are imported (torchao does) is not of a command
    yield client
    client.close()


@pytest.fixture(scope="module")
def pushed(hub: LoopbackHub, client: Client, run_folder: Path) -> Repository:
    """me/verse, as the first push left it."""
    assert client.smt_hf("push", run_folder, "--repo-id", "verse") == 0, client.text
    assert client.text.strip() == f"{hub.url}/me/verse"
    assert len(hub.repositories["me/verse"].commits) == 2  # the Hub's own first one, and ours
    return hub.repositories["me/verse"]


@torch.no_grad()
def greedy(folder: Path) -> list[int]:
    """What the local model writes, by the same search as GENERATE."""
    model: Any = SMTForCausalLM.from_pretrained(folder)
    return model.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, num_beams=2)[0].tolist()


def contents(hub: LoopbackHub) -> dict[str, Any]:
    """Everything that a push could change."""
    return {name: (dict(r.branches), len(r.commits)) for name, r in hub.repositories.items()}


def test_one_commit_brings_the_whole_model_and_nothing_else(pushed, run_folder):
    assert pushed.changed[1] == EXPECTED
    assert pushed.messages[1] == "Upload gru by smt, 2 steps"
    first = list(pushed.commits.values())[1]
    for name in EXPECTED - {"README.md"}:
        assert first[name] == (run_folder / name).read_bytes(), name


def test_the_card_loads_from_the_repository_and_the_local_one_is_left_alone(pushed, run_folder):
    first = list(pushed.commits.values())[1]
    card, local = first["README.md"].decode(), (run_folder / "README.md").read_text()
    assert 'from_pretrained("me/verse")' in card and '"tiny"' not in card
    assert card.replace('"me/verse"', '"tiny"') == local


def test_a_dry_run_lists_what_would_go_and_needs_neither_network_nor_token(run_folder, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was tried"))
    assert main(["push", str(run_folder), "--repo-id", "me/verse", "--dry-run"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    listed = {name: int(size.replace(",", "")) for size, name in (line.split() for line in lines)}
    assert listed == {name: (run_folder / name).stat().st_size for name in EXPECTED}
    assert f"{sum(listed.values()):,}  bytes in {len(EXPECTED)} files would go to me/verse" in total


@pytest.mark.parametrize("words", [["push"], ["push", "--code-only"]])
def test_a_dry_run_refuses_a_name_that_no_repository_can_have(words, run_folder, capsys):
    folder = [] if "--code-only" in words else [str(run_folder)]
    assert main([*words, *folder, "--repo-id", "a b/c", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert "'a b/c' cannot be the name of a repository" in said.err and said.out == ""


def test_the_teacher_can_stay_at_home(run_folder, capsys):
    assert main(["push", str(run_folder), "--repo-id", "x", "--dry-run", "--without-teacher"]) == 0
    assert "teacher/" not in capsys.readouterr().out


def test_a_fresh_process_loads_it_by_name_and_writes_the_same(pushed, server, run_folder, tmp_path):
    load = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    load += "model = AutoModelForCausalLM.from_pretrained('me/verse')\n"
    load += f"assert AutoTokenizer.from_pretrained('me/verse').encode('The ') == {PROMPT}\n"
    with closing(Client(server, tmp_path)) as client:
        assert client("import smt_hf\n" + load + GENERATE) == ["smt_hf.models.modeling_smt", greedy(run_folder)]


def test_evaluate_reads_the_record_that_a_model_was_pushed_with(pushed, hub, client, run_folder):
    """What it judges by itself is what the run held out; without a record it asks for --dataset."""
    words = ["--max-tokens", 256, "--horizon", 32, "--json"]
    assert client.smt_hf("evaluate", "me/verse", *words) == 0, client.text
    remote = json.loads(client.text.splitlines()[-1])
    assert client.smt_hf("evaluate", run_folder, *words) == 0, client.text
    assert remote == json.loads(client.text.splitlines()[-1])
    hub.repositories["me/bare"] = Repository(False)
    files = {name: data for name, data in pushed.files().items() if name != "run.json"}
    hub.repositories["me/bare"].commit("main", files, "without a record")
    assert client.smt_hf("evaluate", "me/bare", *words) == 2
    assert "run.json" in client.text and "--dataset" in client.text and client.text.count("\n") == 1


def test_weights_of_the_hub_are_checked_as_those_of_a_folder_are(pushed, hub, client, folder):
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    hub.repositories["me/half"] = Repository(False)
    files = {**pushed.files(), "model.safetensors": (folder / "model.safetensors").read_bytes()}
    hub.repositories["me/half"].commit("main", files, "a tensor less")
    assert client.smt_hf("generate", "me/half", "--prompt", "a") == 2
    assert "me/half" in client.text and "lm_head.weight" in client.text and client.text.count("\n") == 1


def test_a_process_without_smt_hf_loads_it_with_trust_remote_code(pushed, server, run_folder, tmp_path):
    load = (
        "import sys\nsys.modules['smt_hf'] = None\nfrom transformers import AutoModel, AutoModelForCausalLM\n"
    )
    load += "model = AutoModelForCausalLM.from_pretrained('me/verse', trust_remote_code=True)\n"
    base = "value = type(AutoModel.from_pretrained('me/verse', trust_remote_code=True)).__name__"
    with closing(Client(server, tmp_path, token=None)) as client:
        module, ids = client(load + GENERATE)
        assert module.startswith("transformers_modules.me.verse.") and ids == greedy(run_folder)
        assert client(base) == "SMTModel"
        # The rest of the card too: generating, a state saved and loaded, fine-tuning.
        for snippet in python_of(pushed.files()["README.md"].decode())[1:]:
            client(snippet)
        assert "train_loss" in client.text and (tmp_path / "read.safetensors").is_file()


def test_a_second_push_of_the_same_sends_nothing(pushed, hub, client, run_folder):
    before, large = contents(hub), len(hub.sent("PUT", "/large/"))
    assert client.smt_hf("push", run_folder, "--repo-id", "me/verse") == 0, client.text
    assert contents(hub) == before and len(hub.sent("PUT", "/large/")) == large


def test_a_second_push_sends_only_what_changed(pushed, hub, client, folder):
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nA line by hand.\n")
    large = len(hub.sent("PUT", "/large/"))
    assert client.smt_hf("push", folder, "--repo-id", "me/verse") == 0, client.text
    assert pushed.changed[-1] == {"README.md"} and len(hub.sent("PUT", "/large/")) == large
    assert pushed.files()["README.md"].decode().endswith("A line by hand.\n")
    assert set(pushed.files()) - {".gitattributes"} == EXPECTED


def test_pushing_a_model_whose_cell_is_ones_own_says_that_the_class_stays_behind(client, hub, folder):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "cell": "my_module:Cell"}))
    assert client.smt_hf("push", folder, "--repo-id", "me/own") == 0
    notice, address = client.text.splitlines()
    assert "'my_module:Cell'" in notice and "does not travel" in notice and address.endswith("me/own")


def test_a_push_to_a_branch_leaves_main_alone(pushed, client, folder):
    main_before = pushed.branches["main"]
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nOf the branch.\n")
    assert client.smt_hf("push", folder, "--repo-id", "me/verse", "--revision", "longer") == 0, client.text
    assert pushed.branches["main"] == main_before
    assert pushed.files("longer")["README.md"].decode().endswith("Of the branch.\n")
    assert client("value = huggingface_hub.hf_hub_download('me/verse', 'README.md', revision='longer')")


def test_a_private_repository_is_made_private_and_a_stranger_sees_none(hub, client, run_folder, tmp_path):
    assert client.smt_hf("push", run_folder, "--repo-id", "me/secret", "--private") == 0, client.text
    assert hub.repositories["me/secret"].private
    assert client.smt_hf("push", run_folder, "--repo-id", "me/secret", "--private") == 0, client.text
    load = "from smt_hf import SMTConfig\ntry:\n"
    load += f"    SMTConfig.from_pretrained({{0!r}}, token={{1!r}}, cache_dir={str(tmp_path)!r} + {{1!r}})\n"
    load += "    value = ''\nexcept OSError as error:\n    value = str(error)"
    assert client(load.format("me/secret", "hf_owner")) == ""
    for name, token in (("me/secret", "hf_stranger"), ("me/absent", "hf_owner")):
        assert "is not a local folder and is not a valid model identifier" in client(load.format(name, token))


NO_NETWORK = "huggingface_hub.constants.ENDPOINT = 'http://127.0.0.1:9'"
REFUSED: dict[str, tuple[str, str, str, list[str]]] = {
    "no token": ("os.environ.pop('HF_TOKEN')", "me/new", "", ["no Hugging Face token", "hf auth login"]),
    "wrong token": ("os.environ['HF_TOKEN'] = 'hf_wrong'", "me/new", "", ["does not accept your token"]),
    "read-only token": ("os.environ['HF_TOKEN'] = 'hf_reader'", "me/new", "", ["token of me may only read"]),
    "no network": (NO_NETWORK, "me/new", "", ["connection to the Hub failed", "me/new"]),
    "no such name": ("", "my verse!", "", ["'my verse!'", "OWNER/NAME"]),
    "absent, of somebody else": ("", "you/new", "", ["you/new", "me may not create", "push to me/new"]),
    "private, of somebody else": ("", "you/hidden", "", ["you/hidden", "does not exist or is private"]),
    "public, of somebody else": ("", "you/open", "", ["your token may not write to you/open"]),
    "another kind of model": ("", "me/bert", "", ["me/bert holds another model", "model_type 'bert'"]),
    "another architecture": ("", "me/wide", "", ["another model", "hidden_size 4096, yours 32"]),
    "a refused card": ("", "me/new", "license: mine", ["refuses the metadata", '"license" must be one of']),
    "a card that is no YAML": ("", "me/new", "license: [", ["refuses the metadata", "README.md"]),
    "a token in a file": ("", "me/new", "token", ["run.json", "your Hugging Face token", "remove it"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_push_is_refused_in_one_sentence_before_anything_is_sent(case, hub, client, folder):
    break_it, repo_id, edit, named = REFUSED[case]
    config = json.loads((folder / "config.json").read_text())
    for name, private, there in (
        ("you/hidden", True, config),
        ("you/open", False, config),
        ("me/bert", False, {"model_type": "bert"}),
        ("me/wide", False, {**config, "hidden_size": 4096}),
    ):
        hub.repositories[name] = Repository(private)
        hub.repositories[name].commit("main", {"config.json": json.dumps(there).encode()}, "theirs")
    if edit.startswith("license"):
        card = folder / "README.md"
        card.write_text(card.read_text().replace("license: apache-2.0", edit, 1))
    elif edit == "token":
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "command": ["x", "hf_owner"]}))
    before, puts = contents(hub), len(hub.sent("PUT|POST", "/large/|/commit/"))
    client("saved = huggingface_hub.constants.ENDPOINT, os.environ['HF_TOKEN']\n" + break_it)
    try:
        assert client.smt_hf("push", folder, "--repo-id", repo_id) == 2
        line = client.text
    finally:
        client("huggingface_hub.constants.ENDPOINT, os.environ['HF_TOKEN'] = saved")
    assert line.startswith("smt-hf push: error: ") and line.count("\n") == 1, line
    assert [text for text in named if text not in line] == [], line
    assert contents(hub) == before and len(hub.sent("PUT|POST", "/large/|/commit/")) == puts
    assert [token for token in (*TOKENS, "hf_wrong") if token in line] == []


def test_a_repository_of_other_files_is_left_alone_and_a_fresh_one_is_taken(hub, client, folder):
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "merges.txt", "run.json"]
    for name, files in {"me/adapter": names, "me/fresh": [".gitattributes", "LICENSE", "README.md"]}.items():
        hub.repositories[name] = Repository(False)
        hub.repositories[name].commit("main", dict.fromkeys(files, b"theirs"), "by hand")
    before = contents(hub)
    assert client.smt_hf("push", folder, "--repo-id", "me/adapter") == 2
    named = "adapter_config.json, adapter_model.safetensors, merges.txt"
    said = f"repository me/adapter holds no model but {named}; choose another name."
    assert client.text == f"smt-hf push: error: {said}\n"
    assert contents(hub) == before
    assert client.smt_hf("push", folder, "--repo-id", "me/fresh") == 0, client.text


def test_what_is_to_be_private_does_not_go_to_a_public_repository(pushed, hub, client, folder):
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nA secret.\n")
    before = contents(hub)
    assert client.smt_hf("push", folder, "--repo-id", "me/verse", "--private") == 2
    assert "repository me/verse is public already" in client.text and contents(hub) == before


def test_a_new_branch_of_another_model_is_refused(pushed, hub, client, folder):
    config = SMTConfig.from_pretrained(folder)
    config.cell = "lstm"
    SMTForCausalLM(config).save_pretrained(folder)
    before = contents(hub)
    assert client.smt_hf("push", folder, "--repo-id", "me/verse", "--revision", "lstm") == 2
    assert "cell 'gru', yours 'lstm'" in client.text and contents(hub) == before


def test_an_upload_cut_in_the_middle_leaves_the_old_version_loadable(pushed, hub, client, folder, run_folder):
    change_weights(folder)
    hub.cut_uploads = True
    before, large = contents(hub), dict(hub.large)
    try:
        assert client.smt_hf("push", folder, "--repo-id", "me/verse") == 2
        line = client.text.splitlines()[-1]
    finally:
        hub.cut_uploads = False
    assert "connection to the Hub failed" in line and "me/verse holds what it held before" in line
    assert contents(hub) == before and hub.large == large
    load = "from smt_hf import SMTForCausalLM\nmodel = SMTForCausalLM.from_pretrained('me/verse')\n"
    assert client(load + GENERATE)[1] == greedy(run_folder)
    # Once the connection is back, the same command does the rest.
    assert client.smt_hf("push", folder, "--repo-id", "me/verse") == 0, client.text
    assert pushed.changed[-1] >= {"model.safetensors"} and not pushed.changed[-1] & CODE
    assert pushed.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def change_weights(folder: Path) -> None:
    model = SMTForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(folder)


OLD_CODE = b"raise ImportError('the code of an old version')\n"


def test_the_code_of_a_pushed_model_is_refreshed_and_nothing_else(hub, server, client, run_folder, tmp_path):
    assert client.smt_hf("push", run_folder, "--repo-id", "me/old") == 0, client.text
    repository = hub.repositories["me/old"]
    mine = {"modeling_smt.py": OLD_CODE, "notes.txt": b"mine"}
    repository.commit("main", {**repository.files(), **mine}, "an old version's code")
    load = "import sys\nsys.modules['smt_hf'] = None\nfrom transformers import AutoModelForCausalLM\n"
    load += "model = AutoModelForCausalLM.from_pretrained('me/old', trust_remote_code=True)\n" + GENERATE
    with (
        closing(Client(server, tmp_path / "a", token=None)) as other,
        pytest.raises(AssertionError, match="old"),
    ):
        other(load)
    before = repository.files()
    assert client.smt_hf("push", "--code-only", "--repo-id", "old") == 0, client.text
    assert client.text.strip() == f"{hub.url}/me/old"
    assert repository.changed[-1] == {"modeling_smt.py"} and "code to smt-hf" in repository.messages[-1]
    assert {name for name, data in repository.files().items() if before[name] != data} == {"modeling_smt.py"}
    with closing(Client(server, tmp_path / "b", token=None)) as other:
        assert other(load)[1] == greedy(run_folder)
    commits = len(repository.commits)
    assert client.smt_hf("push", "--code-only", "--repo-id", "me/old") == 0
    assert len(repository.commits) == commits  # nothing left to send


@pytest.mark.parametrize(
    ("config", "words", "named"),
    [
        (None, [], ["holds no model", "RUN_DIR"]),
        ({"model_type": "bert"}, [], ["'bert'"]),
        ({"model_type": "smt", "config_version": 99}, [], ["config_version 99", "update smt-hf"]),
        ({"model_type": "smt", "cell": "gru"}, ["--revision", "b"], ["branch b of"]),
        ({"model_type": "smt", "cell": "gru"}, ["some/folder", "--private"], ["RUN_DIR, --private"]),
    ],
)
def test_code_goes_to_no_repository_without_a_model_that_it_reads(config, words, named, hub, client):
    name = f"me/what{len(hub.repositories)}"  # clients remember what they have read under a name
    if config is not None:
        hub.repositories[name] = Repository(False)
        hub.repositories[name].commit("main", {"config.json": json.dumps(config).encode()}, "theirs")
    before = contents(hub)
    assert client.smt_hf("push", "--code-only", "--repo-id", name, *words) == 2
    assert client.text.startswith("smt-hf push: error: ") and client.text.count("\n") == 1, client.text
    named = [*named] if words[:1] == ["some/folder"] else [*named, name]
    assert [text for text in named if text not in client.text] == [], client.text
    assert contents(hub) == before


def test_a_dry_run_of_the_code_lists_the_files_that_travel(capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was tried"))
    assert main(["push", "--code-only", "--repo-id", "me/verse", "--dry-run"]) == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == CODE
    assert main(["push", "--repo-id", "me/verse"]) == 2
    assert "RUN_DIR is missing" in capsys.readouterr().err


def test_a_run_that_is_to_be_pushed_is_pushed_when_it_is_finished(hub, client, run_folder, tmp_path):
    words = [*TINY, "--dataset", run_folder.parent / "lines.txt", "--output-dir", tmp_path / "run"]
    push = ["--push-to-hub", "--hub-model-id", "me/trained", "--hub-private-repo"]
    assert client.smt_hf(*words, *push) == 0, client.text
    repository = hub.repositories["me/trained"]
    assert repository.private and repository.changed[-1] == EXPECTED and len(repository.commits) == 2
    assert 'from_pretrained("me/trained")' in repository.files()["README.md"].decode()
    everything = b"".join(repository.files().values())
    assert [token for token in TOKENS if token.encode() in everything] == []


def test_a_run_that_could_not_be_pushed_is_refused_before_it_trains(client, run_folder, tmp_path):
    words = [*TINY, "--dataset", run_folder.parent / "lines.txt", "--output-dir", tmp_path / "run"]
    assert client.smt_hf(*words, "--push-to-hub", "--hub-model-id", "you/new") == 2
    assert "me may not create one of you" in client.text
    assert not (tmp_path / "run").exists()


def test_the_recipe_for_a_prompt_shipped_with_the_model_works_as_written(server, client, folder, tmp_path):
    make, use = re.findall(r"```python\n(.*?)\n```", RECIPE.read_text(), re.DOTALL)
    make = make.replace("runs/mine", str(folder)).replace("* 200", "* 3")
    client(make)
    assert client.smt_hf("push", folder, "--repo-id", "me/mine") == 0, client.text
    whole = "system_prompt + 'What is a list?\\n'"
    ids = f"tokenizer({whole}, return_tensors='pt')"
    expected = client(f"value = model.generate(**{ids}, max_new_tokens=40)[0, -40:].tolist()")
    with closing(Client(server, tmp_path, token=None)) as other:
        other("import sys\nsys.modules['smt_hf'] = None")
        assert other(use + "\nvalue = output[0, -40:].tolist()") == expected


TEACHERS = {
    "nowhere": "is neither a folder nor a repository of the Hub that you may read; give a causal",
    "private": "is neither a folder nor a repository of the Hub that you may read; give a causal",
    "gated": "is gated on the Hub; ask for access on its page, and log in with hf auth login",
    "config.json": "has no config.json that names a type; give a model",
}


def test_a_teacher_comes_from_the_hub_or_one_sentence_says_why_not(hub, client, run_folder, tmp_path):
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=258, **sizes)).save_pretrained(tmp_path / "llama")
    byte_tokenizer().save_pretrained(tmp_path / "llama")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "llama").iterdir()}
    for name in [*TEACHERS, "whole"]:
        if name != "nowhere":  # else without the file of its name
            repository = Repository(private=name == "private", gated=name == "gated")
            repository.commit("main", {path: whole[path] for path in whole if path != name}, "teacher")
            hub.repositories[f"shelf/{name}"] = repository
    words = [*TINY, "--dataset", run_folder.parent / "lines.txt", "--output-dir", tmp_path / "run", "--teacher"]
    for name, sentence in TEACHERS.items():
        assert client.smt_hf(*words, f"shelf/{name}") == 2
        line = client.text.splitlines()[-1]
        assert line.startswith(f"smt-hf pretrain: error: teacher 'shelf/{name}' {sentence}"), client.text
    assert not (tmp_path / "run").exists()
    assert client.smt_hf(*words, "shelf/whole") == 0, client.text
