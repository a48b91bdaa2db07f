"""Devices: which of them a process takes, and which of them each block of a large model goes to."""

from collections.abc import Sequence

from token_geometry.base import InputError
from token_geometry.base.lazy import accelerate, torch


def choose_device(device: str) -> str:
    """The device, where `auto` is the first GPU or else the CPU; `InputError` if it does not exist here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
        found = torch.device(device)
        if found.type == "meta" or found.type == "cpu" and found.index:  # which torch takes
            raise ValueError
    except Exception:  # each kind of device has its own
        available = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        called = " (a GPU is called cuda)" * ("gpu" in device.lower())
        raise InputError(f"device {device!r} does not exist here{called}; accepted: {available}") from None
    return device


def assign(device: str, *, gpus_per_model: int = 1, n_models: int = 1, place: int = 0) -> list[str]:
    """Devices of one of several models on this machine: `gpus_per_model` GPUs in a row, or the one device.

    `device` is as for `choose_device`; with several models it names a kind of device, not one GPU. `n_models`
    processes of this machine hold a model each, and `place` is the number of the process among them. Raises
    `InputError` if there is no such device, or there are too few."""
    if (chosen := torch.device(choose_device(device))).type != "cuda" and gpus_per_model != 1:
        given = f"gpus_per_model is {gpus_per_model} and the device {chosen}"
        raise InputError(f"{given}; accepted: 1, or a machine with GPUs")
    if chosen.type != "cuda" or gpus_per_model * n_models == 1:
        return [str(chosen)]
    first, n_gpus = chosen.index or 0, torch.cuda.device_count()
    if first + gpus_per_model * n_models > n_gpus:
        asked = f"num_processes x gpus_per_model is {n_models} x {gpus_per_model}, from device {device!r} on"
        raise InputError(f"{asked}, and this machine has {n_gpus} GPUs: lower one of them")
    return [f"cuda:{first + place * gpus_per_model + number}" for number in range(gpus_per_model)]


def device_map(sketch, gpus: Sequence[str], *, name: str, free: Sequence[int] = ()) -> dict:
    """Which GPU each part of a model goes to: whole blocks, in order, shared out evenly.

    `sketch` is a transformers model, whose weights may lie on the meta device, and `name` its name, for the
    error. `gpus` are names of GPUs, and `free` bytes of each that may be taken; empty: four fifths of what is
    free now, the rest being for states. Raises `InputError` if the GPUs are too small."""
    from accelerate.utils import get_balanced_memory

    free = free or [int(0.8 * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus]
    sketch.tie_weights()
    whole: dict = {"no_split_module_classes": list(sketch._no_split_modules or ())}
    numbers = [torch.device(gpu).index for gpu in gpus]
    memory: dict = dict(zip(numbers, free, strict=True)) | {"cpu": 0}
    parts = accelerate.infer_auto_device_map(sketch, get_balanced_memory(sketch, memory, **whole), **whole)
    if not set(parts.values()) <= set(numbers):
        size = sum(p.numel() * p.element_size() for p in sketch.parameters())
        there = f"the {len(gpus)} GPUs of a process have {sum(free) / 1e9:.0f} GB free"
        way_out = "raise gpus_per_model, or take dtype bfloat16"
        raise InputError(f"model {name!r} takes {size / 1e9:.0f} GB and {there}: {way_out}")
    return parts
