"""The table of an experiment, from rows made by hand."""

import io
from typing import Any

import pytest
from handmade import BITS, STACK, rows
from rich.console import Console

from smt_hf.reporting.console import results_tables
from smt_hf.reporting.groups import best_groups, place, result_lines, scores


def printed(rows: list[dict[str, Any]], width: int = 80) -> list[str]:
    file = io.StringIO()
    for table in results_tables(rows):
        Console(file=file, width=width, highlight=False).print(table)
    return file.getvalue().splitlines()


def test_the_learning_rate_is_chosen_where_it_was_trained_by_the_mean_over_seeds():
    assert best_groups(STACK) == [
        ("", "gru", "smt", 2e-3),
        ("", "gru", "bptt", 1e-3),
        ("", "transformer", "smt", 2e-3),
        ("", "transformer", "bptt", 3e-4),
    ]


def test_of_learning_rates_as_good_where_they_were_trained_the_one_that_lasts_longest_is_best():
    equal = [
        *rows("gru", "bptt", 1e-3, {64: 1.0, 128: 0.9}),
        *rows("gru", "bptt", 3e-3, {64: 1.0, 128: 0.95}),
        *rows("gru", "bptt", 1e-2, {64: 0.99, 128: 0.99}),
    ]
    assert best_groups(equal) == [("", "gru", "bptt", 3e-3)]


def test_tables_stand_as_the_recipes_are_listed_the_shortest_rows_first():
    stack, longer = rows("gru", "smt", 1e-3, {64: 1.0}), rows("gru", "smt", 1e-3, {80: 1.0}, length_trained=80)
    own, first, later = (
        rows("gru", "smt", 1e-3, {64: 1.0}, experiment=name) for name in ("mine", "retrieval", "ablations")
    )
    order = ["retrieval", "stack", "ablations"]
    found = sorted([own, later, longer, stack, first], key=lambda table: place(table, order))
    assert found == [first, stack, longer, later, own]


def test_only_learning_rates_that_lost_to_another_are_rivals():
    lines = {line.key[1:]: (line.chosen, line.rival) for line in result_lines(STACK)}
    assert lines == {
        ("gru", "smt", 2e-3): (False, False),
        ("gru", "bptt", 1e-3): (True, False),
        ("gru", "bptt", 3e-3): (False, True),
        ("transformer", "smt", 2e-3): (False, False),
        ("transformer", "bptt", 3e-4): (False, False),
    }


def test_of_bits_the_fewest_over_all_horizons_are_best():
    text = [
        *rows("gru", "bptt", 1e-3, {32: 2.0, 64: 2.5}, **BITS),
        *rows("gru", "bptt", 3e-3, {32: 2.2, 64: 2.1}, **BITS),
    ]
    assert best_groups(text) == [("", "gru", "bptt", 3e-3)]


def test_the_table_gives_mean_and_half_the_range_of_four_lengths_in_80_columns():
    longest = [{**row, "length_tested": 1024} for row in STACK if row["length_tested"] == 256]
    lines = printed(STACK + longest)
    assert max(map(len, lines)) <= 80 and "…" not in "\n".join(lines)
    at = next(i for i, line in enumerate(lines) if "gru" in line and "smt" in line)
    assert lines[at].split() == ["gru", "smt", "2", "0.980", "0.850", "0.650", "0.650", "360", "12.3k"]
    assert lines[at + 1].split() == ["±0.010", "±0.050", "±0.150", "±0.150"]
    starred = [line.split()[:3] for line in lines if "*" in line][:-1]
    assert starred == [["gru", "bptt", "0.001*"]]  # of the transformer there is nothing to choose from
    assert "best learning rate" in lines[-1] or "best learning rate" in lines[-2]


VARIANTS = ("", "encoder-type=bidirectional", "readout-weight=0,trunk-weight=0")


def test_variants_are_rows_of_their_own_whole_in_80_columns():
    longer = {128: 0.1, 256: 0.1, 1024: 0.1}
    varied = [
        row
        for i, variant in enumerate(VARIANTS)
        for row in rows("transformer", "smt", 2e-3, {64: 0.5 + i / 10, **longer}, variant=variant)
    ]
    assert best_groups(varied) == [(variant, "transformer", "smt", 2e-3) for variant in VARIANTS]
    lines = printed(varied)
    assert max(map(len, lines)) <= 80 and "…" not in "\n".join(lines)
    assert [value for line in lines for value in line.split() if value in ("0.500", "0.600", "0.700")] == [
        "0.500",
        "0.600",
        "0.700",
    ]
    names = "".join(line.split("  smt")[0].strip() for line in lines)
    assert all(variant in names for variant in VARIANTS), names
    assert "transformer cell" in lines[0] and not any("trunk" in line and "transf" in line for line in lines)
    two_cells = printed([*varied, *STACK])
    assert max(map(len, two_cells)) <= 80 and "0.700" in "".join(two_cells)
    assert not any("variant" in line for line in printed(STACK))


def test_each_training_length_has_a_table_of_its_own():
    longer = rows("gru", "smt", 2e-3, {256: 0.5}, length_trained=256)
    titles = [line for line in printed([*longer, *STACK]) if "trained at" in line]
    assert ["trained at 64" in title for title in titles] == [True, False]


def test_a_run_scores_where_it_was_trained_and_bits_weigh_each_token_alike():
    table = rows("gru", "smt", 1e-3, {32: 9.0, 64: 0.5, 128: 9.0})
    assert scores(table) == [0.5]
    text = rows("gru", "smt", 1e-3, {256: 1.0, 32: 3.0, 64: 2.0}, **BITS)
    assert scores(text) == pytest.approx([(32 * 3.0 + 32 * 2.0 + 192 * 1.0) / 256])


def test_a_variant_chooses_a_learning_rate_of_its_own():
    changed = [
        *rows("gru", "bptt", 1e-3, {64: 0.1}, variant="num-labels=4"),
        *rows("gru", "bptt", 3e-3, {64: 0.2}, variant="num-labels=4"),
    ]
    assert best_groups([*STACK, *changed])[-1] == ("num-labels=4", "gru", "bptt", 3e-3)
    assert len(best_groups([*STACK, *changed])) == 5
    line = next(line for line in printed([*STACK, *changed], 100) if "num-labels=4" in line and "*" in line)
    assert line.split()[:4] == ["num-labels=4", "gru", "bptt", "0.003*"]
