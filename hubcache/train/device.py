"""The device that a run takes and its precision, memory and processes; it moves no model."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from accelerate import PartialState

_TOLD = ("hubcache", "torch", "transformers", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run computes: a device, whether in bf16, and this process's number of how many."""

    device: torch.device
    bf16: bool
    process: int
    processes: int

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes."""
        return self.process == 0

    @property
    def told(self) -> str:
        """The device and precision for a person: `cpu with 2 threads, fp32`, or the GPU's name."""
        precision = "bf16" if self.bf16 else "fp32"
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {precision}"
        return f"{self.device.type} with {torch.get_num_threads()} threads, {precision}"


def place(precision: str) -> Place:
    """Choose a GPU where there is one, and bf16 where it computes in it (`precision` auto) or always (bf16).

    Under torchrun each process takes the GPU of its local number.
    """
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    state = PartialState(cpu=not has_gpu)
    # A CPU has no number, whatever accelerate gives the processes on one.
    device = torch.device(state.device) if has_gpu else torch.device("cpu")
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Place(device, bf16, state.process_index, state.num_processes)


@contextmanager
def attention_without_plans() -> Iterator[None]:
    """Keep cuDNN's attention out: it plans for every new shape, 50 ms each on an H200, and batches have many."""
    was_on = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_on)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use: of the GPU by tensors, on a CPU by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free there, None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            told = dict(line.split(":", 1) for line in lines)
    except OSError:
        return None
    return int(told["MemAvailable"].split()[0]) * 1024


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
