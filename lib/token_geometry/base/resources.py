"""What a process takes of its machine: peak memory, and the name of the device."""

import functools
import platform
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from token_geometry.base.lazy import torch


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    # getrusage would do, did it not hand a process that was started by a larger one that one's peak
    unit = 1 if sys.platform == "darwin" else 1024
    return status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(key: str) -> int | None:
    """An entry of Linux's account of this process's memory, bytes; None elsewhere."""
    found = _entry("/proc/self/status", key)
    return int(found.split()[0]) * 1024 if found else None


@functools.cache
def processor() -> str:
    """Name of the processor."""
    return _entry("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _entry(file: str, key: str) -> str:
    """What a file of Linux's `/proc` says of a key; empty elsewhere."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def is_gpu(device: str) -> bool:
    """Whether a torch device is a GPU."""
    return torch.device(device).type == "cuda"


def peak_gpu_memory(devices: Sequence[str]) -> int:
    """Bytes that tensors took at most on the fullest of these devices; 0 where they are no GPUs."""
    return max(torch.cuda.max_memory_allocated(device) if is_gpu(device) else 0 for device in devices)


def device_name(device: str) -> str:
    """Name of a torch device: the GPU's, or the processor's."""
    return torch.cuda.get_device_name(device) if is_gpu(device) else processor()
