"""What a process takes of its machine: peak memory, and the name of the device."""

import functools
import platform
import resource
import sys
from collections.abc import Sequence
from pathlib import Path


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    # getrusage would do, did it not hand a process that was started by a larger one that one's peak
    peak = status("VmHWM")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(key: str) -> int | None:
    """An entry of Linux's account of this process's memory, bytes; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


@functools.cache
def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def is_gpu(device: str) -> bool:
    """Whether a torch device is a GPU."""
    import torch

    return torch.device(device).type == "cuda"


def peak_gpu_memory(devices: Sequence[str]) -> int:
    """Bytes that tensors took at most on the fullest of these devices; 0 where they are no GPUs."""
    import torch

    return max(torch.cuda.max_memory_allocated(device) if is_gpu(device) else 0 for device in devices)


def device_name(device: str) -> str:
    """Name of a torch device: the GPU's, or the processor's."""
    import torch

    return torch.cuda.get_device_name(device) if is_gpu(device) else processor()
