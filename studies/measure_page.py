"""Measure the page that `smt-hf export --to web` writes: first token, tokens per second, a long prompt.

    PYTHONPATH=tests/ecosystem python studies/measure_page.py PAGE

PAGE is an exported folder. It needs chromium, chromedriver and the extra `ecosystem`; the browser is that
of the tests. Every figure is printed three times: on a machine that does other work they differ.
"""

import sys
import tempfile
import time
from pathlib import Path

from browser import chromium, served
from test_web import Page

LONG = Path(__file__).parents[1] / "docs" / "performance.md"


def main(folder: Path) -> None:
    for _ in range(3):
        with tempfile.TemporaryDirectory() as profile, served(folder) as url, chromium(Path(profile)) as driver:
            begun = time.monotonic()
            page = Page(driver, url)
            print(f"loaded after {time.monotonic() - begun:.2f} s", end=", ")
            begun = time.monotonic()
            page.generate("The", 1)
            print(f"first token after {time.monotonic() - begun:.2f} s", end=", ")
            page.generate("", 1000, temperature=0.8)
            print(f"{page.js('smtTexts()[0].speed'):.0f} tokens/s", end=", ")
            begun = time.monotonic()
            page.generate(LONG.read_text("utf-8")[:10_000], 1)
            print(f"10,000 characters read in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
