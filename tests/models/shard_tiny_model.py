# transformers annotates outputs with unions.
# mypy: disable-error-code="arg-type, union-attr"
"""Started by test_sharding, twice: loss and gradients of a sharded model and of a whole one."""

import copy

import torch
import torch.distributed as dist
from tiny_models import BUILT_IN_CELLS, random_ids, tiny_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for cell in BUILT_IN_CELLS:
        model = tiny_model(cell)
        whole = copy.deepcopy(model)
        fully_shard(model.model, mesh=mesh)
        fully_shard(model, mesh=mesh)
        rows = random_ids(2, 9)
        mine = rows[dist.get_rank()][None]
        loss = model(mine, labels=mine, use_cache=False).loss
        loss.backward()
        expected = whole(rows, labels=rows, use_cache=False).loss
        expected.backward()
        dist.all_reduce(loss)
        torch.testing.assert_close(loss.detach() / 2, expected.detach(), rtol=0, atol=1e-5)
        gradients = {name: p.grad for name, p in whole.named_parameters()}
        for name, parameter in model.named_parameters():
            if (gradient := gradients[name]) is None:
                assert parameter.grad is None, name
            else:
                torch.testing.assert_close(parameter.grad.full_tensor(), gradient, rtol=1e-3, atol=1e-5)
    dist.barrier()  # else the first to leave can take the threads of the other down
    dist.destroy_process_group()
