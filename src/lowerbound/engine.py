"""One device or many behind the same few verbs; the only module that imports Lightning Fabric.

A run on one device never imports it and is handed its module back bare. A run on many is one
process per device: this program starts them itself (`lowerbound.launch`), or torchrun or SLURM
did. Each process holds the whole model, sees its rows of every global batch, and takes decisions
(stop, save, skip) together with the others.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowerbound.distributions import Likelihood
from lowerbound.errors import LostProcessError, refuse
from lowerbound.launch import is_launched
from lowerbound.models import Model, Posterior, Prior

__all__ = ["Engine", "ManyDevices", "check_devices", "make_engine", "resolve_device"]

SECONDS_TO_WAIT = 300.0  # for a process that is silent, before the job is given up


class Engine:
    """One device: every verb does nothing.

    Args:
        device: where the model and its batches are.
    """

    rank, world = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_main(self) -> bool:
        """Whether this process writes, speaks and draws."""
        return self.rank == 0

    def setup(self, module: nn.Module) -> nn.Module:
        """The module whose gradients are those of the global batch."""
        return module

    def trained(self, model: Model) -> Model:
        """What is trained in place of ``model``, which is given the best weights at the end."""
        return model

    def agree(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each number over all processes, so that all of them decide alike."""
        return numbers

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the processes."""
        return x

    def all(self, x: Tensor) -> Tensor:
        """Whether ``x`` is true in every process."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """Rows of all processes (N, …), in the order of `rows`."""
        return x

    def rows(self, total: int) -> slice:
        """The contiguous share of ``range(total)`` that this process works on."""
        return slice(self.rank * total // self.world, (self.rank + 1) * total // self.world)

    def barrier(self) -> None:
        """Wait for the others."""

    def connected(self) -> AbstractContextManager[None]:
        """Within it the loss of another process is told as such."""
        return contextlib.nullcontext()


class ManyDevices(Engine):
    """This process's part in a run on several devices.

    Args:
        device: kind of the devices: ``cpu`` or an accelerator.
        devices: how many there are on each machine.
        strategy: ``"ddp"`` for a whole model in each process; ``"fsdp"`` for a share of weights,
            gradients and moments in each.
    """

    def __init__(self, device: torch.device, devices: int, strategy: str = "ddp") -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

        timeout = timedelta(seconds=float(os.environ.get("LOWERBOUND_TIMEOUT", SECONDS_TO_WAIT)))
        # Buffers follow from the data and the weights and are the same everywhere already.
        ddp = DDPStrategy(timeout=timeout, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.fabric = Fabric(
            accelerator=device.type, devices=devices, num_nodes=_num_nodes(), strategy=ddp
        )
        self.fabric.launch()
        self.shards = strategy == "fsdp"
        super().__init__(self.fabric.device)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        # Decisions are a few numbers on the CPU: they must not wait for an accelerator.
        self.group = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def trained(self, model: Model) -> Model:
        """A copy where weights are to be shared out: what is judged stays whole."""
        return copy.deepcopy(model) if self.shards else model

    def setup(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged in backward, and shared out by fsdp."""
        if self.shards:
            return _sharded(module, self.device.type, self.world)
        self.fabric.strategy.module_to_device(module)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            warnings.filterwarnings("ignore", "`broadcast_buffers`", UserWarning)
            # Fabric's own wrapper cannot look into a `Bound`, and precision is the step's.
            return self.fabric.strategy.setup_module(module)

    def agree(self, *numbers: float) -> tuple[float, ...]:
        """One small reduction on the CPU."""
        together = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(together, dist.ReduceOp.MAX, group=self.group)
        return tuple(together.tolist())

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the processes, not differentiated."""
        total = x.detach().clone()
        dist.all_reduce(total, group=self._group(x))
        return total

    def _group(self, x: Tensor) -> dist.ProcessGroup | None:
        return self.group if x.device.type == "cpu" else None

    def all(self, x: Tensor) -> Tensor:
        """Whether ``x`` is true in every process."""
        return self.sum(x.to(torch.float32)) == self.world

    def gather(self, x: Tensor) -> Tensor:
        """Rows of all processes; the shares may differ by one row."""
        sizes = [int(n) for n in self.sum(self._place(torch.tensor([len(x)], device=x.device)))]
        parts = [x.new_zeros((n, *x.shape[1:])) for n in sizes]
        longest = x.new_zeros((max(sizes), *x.shape[1:]))
        longest[: len(x)] = x
        padded = [torch.zeros_like(longest) for _ in parts]
        dist.all_gather(padded, longest, group=self._group(x))
        return torch.cat([part[:n] for part, n in zip(padded, sizes, strict=True)])

    def _place(self, x: Tensor) -> Tensor:
        """``x`` in this process's row of zeros for all of them."""
        row = torch.zeros((self.world, *x.shape[1:]), dtype=x.dtype, device=x.device)
        row[self.rank : self.rank + 1] = x
        return row

    def barrier(self) -> None:
        """Wait for the others."""
        dist.barrier(group=self.group)

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """A broken connection inside becomes one line."""
        try:
            yield
        except RuntimeError as error:
            if not re.search(r"gloo|nccl|connection|peer|socket", str(error), re.IGNORECASE):
                raise
            raise LostProcessError(
                "another process of the run has gone; the last checkpoint is good: "
                "continue with --resume"
            ) from error


def _sharded(step: nn.Module, kind: str, world: int) -> nn.Module:
    """Each network of the model as a unit that is gathered when it is called, the rest as one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # What the step returns is never changed in place, which is what this warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(kind, (world,))
    for child in step.get_submodule("model").children():
        if not isinstance(child, Likelihood | Prior | Posterior) and any(
            True for _ in child.parameters()
        ):
            fully_shard(child, mesh=mesh)
    fully_shard(step, mesh=mesh)
    return step


def make_engine(device: str = "auto", devices: int = 1, strategy: str = "ddp") -> Engine:
    """The engine of a run, by the device's name and how many are asked for.

    Raises:
        InputError: more devices than there are, or several without the processes for them.
    """
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    if is_launched() and here:  # whoever started the processes has said how many there are
        devices = int(here)
    resolved = check_devices(device, devices)
    if devices == 1 and _num_processes() == 1:
        return Engine(resolved)
    if not is_launched():
        remedy = f"start this script with `torchrun --nproc-per-node {devices}`"
        raise refuse("devices", "1 in a process of its own", devices, remedy)
    return ManyDevices(resolved, devices, strategy)


def check_devices(device: str, devices: int) -> torch.device:
    """The device of that name, of which there are as many as asked for.

    Raises:
        InputError: there are not.
    """
    resolved = resolve_device(device)
    there = available(resolved)
    if devices > there:
        kind = "processor cores" if resolved.type == "cpu" else f"{resolved.type} devices"
        raise refuse("devices", f"at most the {there} {kind} of this machine", devices)
    return resolved


def available(device: torch.device) -> int:
    """How many devices of a kind this machine has; a CPU counts its cores."""
    if device.type == "cpu":
        return os.cpu_count() or 1
    return torch.accelerator.device_count()


def resolve_device(name: str) -> torch.device:
    """The device of a run; auto is the first accelerator, else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        remedy = "run `lowerbound doctor` to see what this machine has"
        raise refuse("device", "one that this machine has", name, remedy) from error
    return device


def _num_processes() -> int:
    """Processes of the job, as torchrun or SLURM say."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_NTASKS", "1")) if is_launched() else 1


def _num_nodes() -> int:
    """Machines of the job, as torchrun or SLURM say."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NNODES", "1"))
