"""What `smt-hf serve` refuses before it loads anything. tests/ecosystem/test_serve.py serves for real."""

import sys

import pytest
from tiny_commands import one_line

from smt_hf.cli import main
from smt_hf.cli.serve import check_host, key_of, origin_of


@pytest.fixture
def packages_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they were installed: what is refused here comes before any of them is imported."""
    monkeypatch.setattr("smt_hf.cli.serve.find_spec", lambda name: object())


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["serve", *map(str, words)]) == 2
    return one_line(capfd.readouterr().err)


def test_without_its_packages_it_names_the_extra(capfd, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "uvicorn; run: pip install 'smt-hf[serve]'." in refused(capfd, tmp_path)


@pytest.mark.usefixtures("packages_that_serve")
@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_does_not_exist(capfd, tmp_path, port):
    assert f"--port is {port}; it must lie between 1 and 65535." in refused(capfd, tmp_path, "--port", port)


@pytest.mark.usefixtures("packages_that_serve")
def test_a_folder_without_a_model(capfd, tmp_path):
    assert f"{tmp_path} holds no model.safetensors" in refused(capfd, tmp_path)
    assert "nowhere/at/all does not exist" in refused(capfd, "nowhere/at/all")


@pytest.mark.usefixtures("packages_that_serve")
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_key_that_everybody_would_have(capfd, monkeypatch, tmp_path, empty):
    monkeypatch.setenv("SMT_HF_API_KEY", "sesame")
    assert "error: --api-key is empty; give a key, or leave it out." in refused(
        capfd, tmp_path, "--api-key", empty
    )
    monkeypatch.setenv("SMT_HF_API_KEY", empty)
    assert "error: SMT_HF_API_KEY is empty; give a key, or leave it out." in refused(capfd, tmp_path)
    assert key_of("sesame") == "sesame"  # a key that was given wins over the variable
    monkeypatch.delenv("SMT_HF_API_KEY")
    assert key_of(None) is None


@pytest.mark.usefixtures("packages_that_serve")
@pytest.mark.parametrize(
    "origin",
    ["example.com", "https://example.com/", "https://*.a.b", "https://é.fr", "https://a.b:", "null", ""],
)
def test_pages_that_no_browser_calls_so(capfd, tmp_path, origin):
    said = refused(capfd, tmp_path, "--cors", "https://fine.example", origin)
    assert f"--cors is {origin!r}; it must be * or SCHEME://HOST[:PORT] without a path" in said


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("*", "*"),
        ("HTTPS://Example.com", "https://example.com"),
        ("https://a.b:443", "https://a.b"),
        ("http://a.b:80", "http://a.b"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:443", "http://[::1]:443"),
    ],
)
def test_pages_are_named_as_a_browser_names_them(given, origin):
    assert origin_of(given) == origin


@pytest.mark.usefixtures("packages_that_serve")
@pytest.mark.parametrize("name", ["box:8000", "http://box", "box/", "[::1]", "*", ""])
def test_hosts_that_are_no_bare_names(capfd, tmp_path, name):
    said = refused(capfd, tmp_path, "--allowed-hosts", "fine", name)
    assert f"--allowed-hosts is {name!r}; it must be a name alone, without scheme and port." in said


@pytest.mark.parametrize("name", ["Box", "a_b.example-1.com", "10.0.0.1", "::1", "0.0.0.0"])
def test_bare_names_and_addresses_are_hosts(name):
    check_host(name)


@pytest.mark.usefixtures("packages_that_serve")
@pytest.mark.parametrize("store", ["none", "redis://:secret@localhost:1/0"])
def test_a_limit_of_a_store_that_keeps_no_bytes_of_its_own(capfd, tmp_path, store):
    words = ["--state-store", store, "--max-store-bytes", 2**20]
    said = refused(capfd, tmp_path, *words)
    assert "--max-store-bytes is for --state-store memory or sqlite:///FILE; leave it out." in said
    assert "secret" not in said
    assert "no model.safetensors" in refused(capfd, tmp_path, "--state-store", store)
    assert "no model.safetensors" in refused(capfd, tmp_path, *words, "--state-store", "sqlite:///x.db")
