"""metrics.jsonl after a crash: whatever byte its last line was cut at, the whole lines stay and no other."""

import json
from typing import Any

from smt_hf.runs.folder import METRICS, RunFolder

LINES: list[dict[str, Any]] = [
    {"step": 1, "seconds": 0.5, "phase": "smt"},
    {
        "step": 2,
        "evaluation": {"loss": 2.0, "by_horizon": [{"end": 32, "loss": 1.5}, {"end": 64}], "name": "né"},
    },
]
NEXT = {
    "step": 3,
    "evaluation": {"drift": [{"horizon": 1, "näher": {"über": "日本"}}], "a": {"b": {}}},
    "z": [],
}


def written(folder, lines: list[dict[str, Any]]) -> bytes:
    for line in lines:
        folder.log(line)
    return (folder.path / METRICS).read_bytes()


def test_a_line_cut_at_any_byte_is_dropped_and_the_others_stay(tmp_path):
    folder = RunFolder(tmp_path)
    whole = written(folder, LINES)
    for ensure_ascii in (True, False):
        line = json.dumps(NEXT, ensure_ascii=ensure_ascii).encode()
        for cut in range(len(line)):
            (tmp_path / METRICS).write_bytes(whole + line[:cut])
            folder.forget_after(10)
            assert (tmp_path / METRICS).read_bytes() == whole, cut
        (tmp_path / METRICS).write_bytes(whole + line)  # all but the end of the line
        folder.forget_after(10)
        assert (tmp_path / METRICS).read_bytes() == whole + line + b"\n"


def test_other_remains_of_a_crash_are_dropped_too(tmp_path):
    folder = RunFolder(tmp_path)
    whole = written(folder, LINES)
    for rest in (b"\0" * 40, b"\xff\xfe", b"\n\n", b'"step"', b"[1]", b'{"step": "x"}', b'{"st": 1}', b"3"):
        (tmp_path / METRICS).write_bytes(whole + rest)
        folder.forget_after(10)
        assert (tmp_path / METRICS).read_bytes() == whole, rest


def test_steps_that_are_done_again_are_forgotten_and_so_is_the_evaluation_if_told(tmp_path):
    folder = RunFolder(tmp_path)
    written(folder, [*LINES, NEXT])
    folder.forget_after(2)
    assert [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2]
    folder.forget_after(2, last_evaluation=False)
    assert [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1]
