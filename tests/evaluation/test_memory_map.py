"""The plane of free-running memories: principal components, worked out another way."""

import pytest
import torch
from test_free_running import rows, tiny_model

from smt_hf.evaluation.memory_map import memory_map


@torch.no_grad()
def test_points_are_the_memories_along_the_axes_of_most_variance():
    model, (x, _) = tiny_model(), rows(20, 6)
    found = memory_map(model, x, [str(i) for i in range(20)], "row")
    core, memories = model.model, []
    for row in x:
        memory = core.start_memory(1)
        for token in row:
            memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(token[None])))
        memories.append(memory.flatten())
    centred = (torch.stack(memories) - torch.stack(memories).mean(0)).double()
    values, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    expected = centred @ axes[:, [-1, -2]]
    points = torch.tensor(found["points"], dtype=torch.float64)
    signs = (points * expected).sum(0).sign()  # of an axis there are two
    torch.testing.assert_close(points, expected * signs, rtol=0, atol=1e-3)
    assert found["explained"] == pytest.approx((values[-2:].sum() / values.sum()).item(), abs=1e-3)
    assert found["groups"] == [str(i) for i in range(20)] and found["group_by"] == "row"


def test_memories_that_are_all_equal_are_one_point_and_explain_nothing():
    x = torch.full((4, 5), 3)
    found = memory_map(tiny_model(), x, ["a"] * 4, "nothing")
    assert found["explained"] == pytest.approx(0, abs=1) and found["explained"] == found["explained"]
    assert all(abs(entry) < 1e-3 for point in found["points"] for entry in point)
