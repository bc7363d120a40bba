"""From nats to bits per byte, and what is reported of them."""

import math

import pytest

from smt_hf.evaluation.metrics import bits_per_byte, describe, report, report_by_length

METRICS = {
    "loss": 2 * math.log(2),
    "accuracy": 0.625,
    "targets": 96,
    "by_horizon": [
        {"start": 0, "end": 32, "loss": 3 * math.log(2), "accuracy": 0.5},
        {"start": 32, "end": 96, "loss": 1.5 * math.log(2), "accuracy": 0.7},
    ],
}


@pytest.mark.parametrize(
    ("nats", "bytes_per_token", "bits"),
    [
        (math.log(2), 1.0, 1.0),  # a coin for every byte
        (math.log(256), 1.0, 8.0),  # any byte as likely as any other
        (math.log(2), 4.0, 0.25),
        (math.log(2), 0.5, 2.0),
        (0.0, 3.0, 0.0),
    ],
)
def test_bits_per_byte(nats, bytes_per_token, bits):
    assert bits_per_byte(nats, bytes_per_token) == pytest.approx(bits)


def test_the_report_of_a_text_converts_every_loss():
    assert report(METRICS, "text", 2.0) == {
        "bits_per_byte": pytest.approx(1.0),
        "tokens": 96,
        "by_horizon": [
            {"start": 0, "end": 32, "bits_per_byte": pytest.approx(1.5)},
            {"start": 32, "end": 96, "bits_per_byte": pytest.approx(0.75)},
        ],
    }


def test_the_report_of_images_names_their_dimensions():
    result = report(METRICS, "image", 1.0)
    assert result["bits_per_dimension"] == pytest.approx(2.0)
    assert [part["bits_per_dimension"] for part in result["by_horizon"]] == pytest.approx([3.0, 1.5])


def test_the_report_of_a_task_is_its_accuracy_at_every_length():
    longer = {**METRICS, "accuracy": 0.25, "targets": 50}
    assert report_by_length({32: METRICS, 64: longer}, chance=0.125) == {
        "accuracy": 0.625,
        "chance": 0.125,
        "tokens": 96,
        "by_length": {"32": 0.625, "64": 0.25},
    }


def test_the_description_holds_the_same_figures():
    assert describe(METRICS, "text", 2.0) == "bits per byte by horizon 0–32: 1.500, 32–96: 0.750"
    assert describe(METRICS, "image", 2.0) == "bits per dimension by horizon 0–32: 1.500, 32–96: 0.750"
    assert describe(METRICS, "task", None) == "accuracy 0.6250 from a cold start"
