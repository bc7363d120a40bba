"""The page that `smt-hf export --to web` writes, in a real Chromium."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import CHROMIUM, DRIVER, chromium, runtime_folder, served
from tiny_checkpoints import needs

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer, load_tokenizer
from smt_hf.export.page import FROM_CDN, RUNTIME_INTEGRITY, RUNTIME_VERSION, page_tokenizer, write_page
from smt_hf.export.program import StepProgram

pytestmark = [
    *needs("onnx", "onnxruntime", "onnxscript", "selenium"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
    ),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]

PROMPT = "The module “os” — naïve 日本 🙂:\n    def f(x):\t\treturn 3"
K, D = 4, 32


class Page:
    """What a visitor does."""

    def __init__(self, driver: Any, url: str, until: str = "!document.getElementById('generate').disabled"):
        self.driver = driver
        driver.get(url)
        self.wait(until)

    def js(self, source: str, *values: Any) -> Any:
        return self.driver.execute_script(f"return {source}", *values)

    def wait(self, condition: str) -> None:
        end = time.monotonic() + 60
        while not self.js(condition):
            assert time.monotonic() < end, (condition, self.js("document.getElementById('status').textContent"))
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def generate(self, prompt: str, most: int, temperature: float = 0, seed: str = "") -> None:
        self.js(
            """(([prompt, most, temperature, seed]) => {
              for (const [id, value] of Object.entries({ prompt, most, temperature, seed }))
                document.getElementById(id).value = value;
              document.getElementById('generate').click();
            })(arguments)""",
            prompt, str(most), str(temperature), seed,
        )  # fmt: skip
        self.wait("!document.getElementById('generate').disabled")

    def ids(self, text: int = 0) -> list[int]:
        return self.js("smtTexts()[arguments[0]].ids", text)

    def memory(self, text: int = 0) -> torch.Tensor:
        return torch.tensor(self.js("[...smtTexts()[arguments[0]].memory]", text)).view(1, K, D)

    def bytes_of(self, name: str) -> int:
        return int(self.js("document.querySelector(arguments[0]).dataset.bytes", name))

    def status(self) -> str:
        return self.js("document.getElementById('status').textContent")

    def open(self, path: Path) -> None:
        self.js("document.getElementById('status').textContent = ''")
        self.driver.find_element("id", "file").send_keys(str(path))
        self.wait("document.getElementById('status').textContent !== ''")


@pytest.fixture(scope="module")
def model() -> SMTForCausalLM:
    torch.manual_seed(0)
    config = SMTConfig(
        vocab_size=2048, hidden_size=D, num_memory_tokens=K, cell="gru", num_readout_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    return SMTForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    from smt_hf.export.export import export

    above = tmp_path_factory.mktemp("web")
    runtime = runtime_folder(above, RUNTIME_VERSION)
    if runtime is None:
        pytest.skip("onnxruntime-web cannot be had from npm")
    export(model, load_tokenizer("example"), "web", above / "page", "a tiny model", runtime=runtime)
    return above / "page"


@pytest.fixture(scope="module")
def browser(folder):
    with served(folder) as url, chromium(folder.parent) as driver:
        yield driver, url


@pytest.fixture
def page(browser):
    driver, url = browser
    driver.get_log("browser")
    page = Page(driver, url)
    yield page
    assert [line for line in driver.get_log("browser") if line["level"] != "INFO"] == []


@torch.no_grad()
def greedy(model: SMTForCausalLM, ids: list[int], count: int) -> tuple[list[int], Any]:
    """(the tokens that the page must write after `ids`, the state after the last)."""
    out = model(torch.tensor([ids]), use_cache=True)
    found = []
    for _ in range(count):
        token = out.logits[:, -1:].argmax(-1)
        found.append(int(token))
        out = model(token, cache=out.cache, use_cache=True)
    return found, out.cache


def test_greedy_tokens_are_pytorchs_and_the_state_keeps_its_size(page, model):
    expected, _ = greedy(model, load_tokenizer("example")(PROMPT)["input_ids"], 100)
    before, cache = page.bytes_of(".state"), page.bytes_of(".cache")
    page.generate(PROMPT, 100)
    assert page.ids() == expected
    assert page.bytes_of(".state") == before == 4 * K * D
    assert cache == 0 and page.bytes_of(".cache") == (
        len(load_tokenizer("example")(PROMPT)["input_ids"]) + 100
    ) * (2 * 2 * D * 4)


def test_any_of_several_end_tokens_ends_the_text(browser, model, folder, tmp_path):
    expected, _ = greedy(model, load_tokenizer("example")(PROMPT)["input_ids"], 20)
    end = next(token for token in expected[5:] if token not in expected[:5])
    shutil.copytree(folder, tmp_path / "page")
    about = {**json.loads((folder / "model.json").read_text("utf-8")), "eos": [0, end]}
    (tmp_path / "page" / "model.json").write_text(json.dumps(about), "utf-8")
    with served(tmp_path / "page") as url:
        page = Page(browser[0], url)
        page.generate(PROMPT, 20)
    assert page.ids() == expected[: expected.index(end) + 1]


def test_a_saved_state_is_loaded_by_python_and_by_the_page(page, model, folder):
    page.generate(PROMPT, 20)
    page.click(".save")
    read = len(load_tokenizer("example")(PROMPT)["input_ids"]) + 20
    path = folder.parent / f"state-{read}.safetensors"
    end = time.monotonic() + 20
    while not path.is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    cache: Any = model.load_state(path)
    assert int(cache.get_seq_length()) == read
    assert torch.equal(cache.layers[0].memory, page.memory())
    page.generate("", 10)
    expected = page.ids()[20:]

    page.click("#restart")
    page.wait("smtTexts()[0].read === 0")
    page.open(path)
    assert "loaded" in page.status()
    page.generate("", 10)  # nothing is read: the logits are what the memory says
    assert page.ids() == expected


def test_a_state_that_python_saved_goes_on_in_the_page(page, model, tmp_path):
    ids = load_tokenizer("example")(PROMPT)["input_ids"]
    expected, _ = greedy(model, ids, 30)
    with torch.no_grad():
        model.save_state(model(torch.tensor([ids]), use_cache=True).cache, tmp_path / "state.safetensors")
    page.open(tmp_path / "state.safetensors")
    page.generate("", 30)
    assert page.ids() == expected


def test_a_file_that_is_no_state_of_this_model_is_refused_in_a_sentence(page, model, tmp_path):
    from safetensors.torch import load_file, save_file

    (tmp_path / "text").write_text("no state at all")
    with torch.no_grad():
        model.save_state(model(torch.tensor([[5]]), use_cache=True).cache, tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-9])
    about = {"format": "smt_state", "version": "1", "num_tokens": "3"}
    tensors = load_file(tmp_path / "state")
    save_file({**tensors, "initial_memory": -tensors["initial_memory"]}, tmp_path / "other", metadata=about)
    save_file(tensors, tmp_path / "newer", metadata={**about, "version": "2"})
    said = {"text": "not a saved state", "cut": "damaged", "other": "another model", "newer": "format 2"}
    for name, words in said.items():
        page.open(tmp_path / name)
        assert words in page.status()
    page.generate("a", 3)
    assert len(page.ids()) == 3


def test_a_fork_goes_on_from_the_same_memory_beside_the_first(page):
    page.generate(PROMPT, 5)
    page.click("#fork")
    page.wait("smtTexts().length === 2")
    assert torch.equal(page.memory(0), page.memory(1))
    page.generate("", 20)
    assert page.ids(0) == page.ids(1) and len(page.ids(0)) == 25
    page.generate("", 20, temperature=1.5)
    assert page.ids(0) != page.ids(1) and page.ids(0)[:25] == page.ids(1)[:25]
    kept = page.ids(1)
    page.click(".text:nth-child(2) .keep")
    page.wait("smtTexts().length === 1")
    assert page.ids() == kept


def test_a_seed_repeats_a_text_and_another_seed_or_none_writes_another(page):
    def written(seed: str, fork: bool = False) -> list[list[int]]:
        page.click("#restart")
        page.wait("smtTexts().length === 1 && smtTexts()[0].read === 0")
        if fork:
            page.click("#fork")
            page.wait("smtTexts().length === 2")
        page.generate(PROMPT, 30, temperature=1, seed=seed)
        return [page.ids(text) for text in range(1 + fork)]

    one = written("1")
    assert written("1") == one != written("2")
    assert written("") != written("")
    first, second = written("1", fork=True)
    assert [first] == one and second != first


def test_a_seed_that_is_no_whole_number_is_refused_before_anything_is_read(page):
    for seed in ("-1", "1.5", "4294967296"):
        page.generate(PROMPT, 5, seed=seed)
        assert not page.js("document.getElementById('seed').validity.valid") and page.ids() == []
    page.generate(PROMPT, 5, seed="4294967295")
    assert len(page.ids()) == 5


def test_draws_of_a_seed_spread_evenly(page):
    counts = page.driver.execute_async_script(
        """const [finish] = arguments;
        import('./random.js').then(({ drawsOf }) => {
          const counts = new Array(20).fill(0);
          for (let seed = 0; seed < 1000; seed++) {
            const draw = drawsOf(seed, seed % 2);
            for (let i = 0; i < 20; i++) counts[Math.floor(20 * draw())] += 1;
          }
          finish(counts);
        });"""
    )
    assert sum(counts) == 20_000 and all(850 < count < 1150 for count in counts)


def test_a_long_prompt_leaves_the_page_alive_and_can_be_stopped(page):
    answer = page.driver.execute_async_script(
        """const finish = arguments[1];
        document.getElementById('prompt').value = arguments[0];
        document.getElementById('generate').click();
        let slowest = 0, last = performance.now(), ticks = 0;
        const timer = setInterval(() => {
          const now = performance.now();
          slowest = Math.max(slowest, now - last); last = now;
          if (++ticks === 40) document.getElementById('stop').click();
          if (!document.getElementById('generate').disabled) { clearInterval(timer); finish([slowest, ticks]); }
        }, 10);""",
        "Lorem ipsum dolor sit amet. " * 4000,
    )
    slowest, ticks = answer
    assert slowest < 1000 and ticks >= 40
    assert page.js("smtTexts()[0].read") > 0


@contextmanager
def page_with_cdn(model: SMTForCausalLM, program: Path, folder: Path, runtime: Path) -> Iterator[str]:
    """The page of a program, without --runtime, in a new folder; a server of `runtime` stands for the CDN."""
    folder.mkdir()
    shutil.copyfile(program, folder / "model.onnx")
    write_page(folder, StepProgram(model), page_tokenizer(load_tokenizer("example")), "a tiny model", None)
    written = (folder / "model.json").read_text("utf-8")
    with served(runtime) as cdn, served(folder) as url:
        assert written.count(FROM_CDN) == 1
        (folder / "model.json").write_text(written.replace(FROM_CDN, cdn), "utf-8")
        yield url


def test_the_runtime_of_a_cdn_is_loaded_where_it_is_what_was_published(browser, model, folder, tmp_path):
    expected, _ = greedy(model, load_tokenizer("example")(PROMPT)["input_ids"], 20)
    with page_with_cdn(model, folder / "model.onnx", tmp_path / "page", folder / "runtime") as url:
        page = Page(browser[0], url)
        page.generate(PROMPT, 20)
    assert page.ids() == expected


FAILED = "document.getElementById('status').classList.contains('wrong')"


@pytest.mark.parametrize("name", RUNTIME_INTEGRITY)
def test_a_changed_byte_of_the_cdn_is_refused_in_a_sentence(browser, model, folder, tmp_path, name):
    shutil.copytree(folder / "runtime", tmp_path / "cdn")
    whole = (folder / "runtime" / name).read_bytes()
    (tmp_path / "cdn" / name).write_bytes(whole[:-1] + b" ")  # JavaScript runs as before
    with page_with_cdn(model, folder / "model.onnx", tmp_path / "page", tmp_path / "cdn") as url:
        page = Page(browser[0], url, FAILED)
    assert page.status().startswith(f"{name} of 127.0.0.1:") and page.status().endswith(
        " is not the file that this page was made for, so it was not run; "
        "reload the page, or export it with --runtime."
    )
    assert page.js("document.getElementById('generate').disabled")


def test_a_cdn_without_the_runtime_is_named_in_a_sentence(browser, model, folder, tmp_path):
    (tmp_path / "cdn").mkdir()
    with page_with_cdn(model, folder / "model.onnx", tmp_path / "page", tmp_path / "cdn") as url:
        page = Page(browser[0], url, FAILED)
    assert page.status().startswith("The runtime could not be loaded from http://127.0.0.1:")


TEXTS = (
    PROMPT, "", " ", "  a  b", "don't we'll\r\n\r\n x\x0b\x85y\ufeffz\u3000", "a<|endoftext|>b<|pad|>",
    "٣²Ⅷ e\u0301", "aaaaaaa" * 9, "for i in range(10):\n        print(i)\n\n\n", "\x00\x7f\xad ",
)  # fmt: skip


@pytest.mark.parametrize("name", ["byte", "example"])
def test_the_pages_tokenizer_is_the_models(page, name):
    tokenizer = byte_tokenizer() if name == "byte" else load_tokenizer(name)
    texts = [*TEXTS, Path(__file__).read_text("utf-8")]
    found, decoded = page.driver.execute_async_script(
        """const [described, texts, finish] = arguments;
        import('./bpe.js').then(({ Tokenizer }) => {
          const tokenizer = new Tokenizer(JSON.parse(described));
          const ids = texts.map((text) => tokenizer.encode(text));
          const text = (ids) => {
            const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
            return ids.map((id) => decoder.decode(tokenizer.bytesOf(id), { stream: true })).join('');
          };
          finish([ids, ids.map(text)]);
        });""",
        json.dumps(page_tokenizer(tokenizer)), texts,
    )  # fmt: skip
    assert found == [tokenizer(text)["input_ids"] for text in texts]
    assert decoded == [tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
