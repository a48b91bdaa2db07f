"""Batches: how many prompts go through a model at once."""

from collections.abc import Callable, Sequence

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from token_geometry.base import InputError, resources
from token_geometry.requests.sizes import bytes_of_geometry, bytes_of_prompt

LARGEST = 8  # largest batch that is chosen: prompts of a thousand tokens keep a GPU busy with fewer
SHARE = 0.8  # share of the free memory that a batch may take: what the kernels need besides is not counted


def fitting(model, n_tokens: int, *, size: int | None = None, n_processes: int = 1) -> tuple[int, int]:
    """Prompts of a batch, and batches that a CPU works on at a time; 0 of them on GPUs.

    `model` is a loaded `states.LanguageModel`, `n_tokens` the length of each prompt, `size` the prompts of a
    batch where this is given, and `n_processes` how many share the memory of a CPU. A GPU takes as many prompts
    as the memory holds that is free beside the weights, up to `LARGEST`; a CPU one: a core has enough to do
    with it, and a larger batch only leaves the caches."""
    config, item = model.model.config.get_text_config(), next(model.model.parameters()).element_size()
    prompt = bytes_of_prompt(layers=model.n_layers + 1, n_tokens=n_tokens, width=config.hidden_size, item=item)
    geometry = bytes_of_geometry(n_tokens)
    if gpus := [device for device in model.devices if resources.is_gpu(device)]:
        free = min(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
        return size or as_many_as_fit(LARGEST, prompt, free=free, fixed=geometry), 0
    size, free = size or 1, psutil.virtual_memory().available // n_processes
    return size, as_many_as_fit(torch.get_num_threads(), size * prompt + geometry, free=free)


def as_many_as_fit(n: int, each: int, *, free: int, fixed: int = 0) -> int:
    """At most `n` things of so many bytes each, as free memory has room for beside fixed ones; at least one."""
    return max(1, min(n, int((SHARE * free - fixed) // each)))


class Halving:
    """Work in batches, of `size` items at first, that become half as large where the memory is too small;
    `what` says what one item is, for the error."""

    def __init__(self, size: int, *, what: str):
        self.size, self._what = size, what

    def __call__(self, work: Callable[[Sequence], list], items: Sequence) -> list:
        """Results of `work`, one per item of a batch, in order; `InputError` if a single item does not fit."""
        results: list = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            if (done := _if_it_fits(work, batch)) is not None:
                results += done
                continue
            if len(batch) == 1:
                way_out = "take dtype bfloat16, or spread the model over more GPUs with gpus_per_model"
                raise InputError(f"the memory is too small for {self._what}: lower n_tokens, {way_out}")
            self.size = min(self.size, len(batch) // 2)
            clear_device_cache(garbage_collection=True)
            print(f"the memory is too small for {len(batch)} prompts at once: going on with {self.size}")
        return results


def _if_it_fits(work, batch) -> list | None:
    # a function of its own: when it returns, the error that holds the tensors is gone
    try:
        return work(batch)
    except Exception as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        return None
