"""Training of a model in PyTorch with DistributedDataParallel over gloo; prints the examples per second of all processes.

    torchrun --nproc_per_node=2 pytorch_ddp_peer.py --model=lenet --batch_size=128 --threads=1

--batch_size is that of each process. benchmarks/processes.py runs it.
"""

import time

import peer

flags = peer.parse_flags(__doc__, ["eager"])

import torch
import torch.distributed

import torch_models


def main():
    torch.set_num_threads(flags.threads)
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(1)
    model, parameters = torch_models.build_model(flags.model)
    if parameters != peer.MODELS[flags.model].parameters:
        raise SystemExit("%s has %d parameters" % (flags.model, parameters))
    model = torch.nn.parallel.DistributedDataParallel(model)
    inputs, labels = (torch.from_numpy(array) for array in peer.random_data(flags))
    if labels.dtype == torch.int32:
        labels = labels.long()
    optimizer = torch_models.make_optimizer(flags.model, model)

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = torch_models.loss_of(flags.model, model(inputs), inputs, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(10):
        train()
    start = time.perf_counter()
    train()
    # All processes make the same number of steps.
    steps = torch.tensor([max(3, int(flags.seconds / (time.perf_counter() - start)))])
    torch.distributed.broadcast(steps, 0)
    times = []
    for _ in range(int(steps)):
        start = time.perf_counter()
        train()
        times.append(time.perf_counter() - start)
    if torch.distributed.get_rank() == 0:
        rate = flags.batch_size * torch.distributed.get_world_size() / sorted(times)[len(times) // 2]
        print("%.1f" % rate, file=peer._output, flush=True)
    torch.distributed.destroy_process_group()


main()
