"""The same computation on every layer, on whatever device the hidden states are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def map_layers(function: Callable, hidden: torch.Tensor) -> list:
    """Apply a function of the states of one layer to every layer of hidden states, shape (layer, token, width).

    On a CPU the layers are shared out to as many threads as torch uses, and each works on one core: a
    team of threads inside each small operation would spend its time waiting for one another, above all
    where other programs run."""
    n_threads = torch.get_num_threads()
    if hidden.device.type != "cpu" or n_threads == 1:
        return [function(points) for points in hidden]
    try:
        # the number of threads belongs to the thread that sets it, and is the default of later ones
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, hidden))
    finally:
        torch.set_num_threads(n_threads)
