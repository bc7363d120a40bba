"""All pictures of an experiment."""

from .drawing import Picture
from .findings import Experiment
from .model_pictures import image_samples, memory_maps, score_by_state_bytes, variants
from .training_pictures import drift_by_horizon, learning_curves, reach, score_by_length

DRAW = (
    score_by_length, learning_curves, reach, drift_by_horizon, score_by_state_bytes, variants, memory_maps,
    image_samples,
)  # fmt: skip


def pictures_of(experiment: Experiment) -> list[Picture]:
    """Every picture that the stored files allow, in the order of the page."""
    return [picture for draw in DRAW if (picture := draw(experiment)) is not None]
