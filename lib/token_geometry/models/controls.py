"""Controls: the same network untrained, or with the weights of each tensor permuted."""

import hashlib
import re

WORDS = {"random": "untrained", "permuted": "weights permuted"}
"""What the title of a control says of it."""

_CONTROL = re.compile(r"(?P<original>.+)@(?P<control>random|permuted)(-(?P<seed>\d+))?")


def split(name: str) -> tuple[str, str, int]:
    """Name of the original, the control (empty: none) and its seed."""
    found = _CONTROL.fullmatch(name)
    return (found["original"], found["control"], int(found["seed"] or 0)) if found else (name, "", 0)


def untrained(kind: type, options: dict, seed: int):
    """A network with weights drawn as before training.

    Parameters
    ----------
    kind
        Class of a transformers model.
    options
        What its `from_pretrained` takes.
    seed
        Seed of the draw.
    """
    import torch

    # Weights are drawn from the first module to the last, the head at the end: so a model with the
    # first few blocks only has the weights that the whole one has there.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_pretrained(None, state_dict={}, **options)


def permute(model, seed: int) -> None:
    """Put the weights of each tensor of a network into random order, in place."""
    import torch

    for name, weights in model.named_parameters():
        # by name, without the part that only a model with head has: so it is the same for the first
        # few blocks alone
        stem = name.removeprefix(f"{model.base_model_prefix}.")
        digest = hashlib.sha256(f"{seed}\0{stem}".encode()).digest()
        random = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        order = torch.randperm(weights.numel(), generator=random)
        with torch.no_grad():
            weights.copy_(weights.flatten()[order].view_as(weights))
