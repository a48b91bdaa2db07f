"""Controls: the same network untrained, or with the weights of each tensor permuted."""

import hashlib
import re

from token_geometry.base import InputError
from token_geometry.base.lazy import torch
from token_geometry.models import blocks

WORDS = {"random": "untrained", "permuted": "weights permuted"}  # what the title of a control says of it

_CONTROL = re.compile(r"(?P<original>.+)@(?P<control>random|permuted)(-(?P<seed>\d+))?")


def split(name: str) -> tuple[str, str, int]:
    """Name of the original, the control (empty: none) and its seed."""
    found = _CONTROL.fullmatch(name)
    if found and len(found["seed"] or "") > 18:  # beyond what torch takes
        raise InputError(f"model {name!r}: the seed of its control is too long; accepted: up to 18 digits")
    return (found["original"], found["control"], int(found["seed"] or 0)) if found else (name, "", 0)


def untrained(kind, options: dict, seed: int, *, sketch, name: str):
    """A network with weights drawn as before training, all of them from the seed.

    Weights are drawn from the first module to the last, the head at the end: so a network of the first few
    blocks has the weights that the whole one has there. In a family that draws others after its blocks, or has
    weights that transformers' initialization leaves out, the whole network is laid out and drawn by its
    constructors, and cut afterwards.

    `kind` is the class of a transformers model, `options` what its `from_pretrained` takes, and `sketch` the whole
    network without memory for its weights. Raises `InputError` if the family leaves weights as the memory was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills memory that nothing is written to with NaN
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if _is_drawn_in_order(sketch):
                model = kind.from_pretrained(None, state_dict={}, **options)
            else:
                model = kind._from_config(**options)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    for tensor, values in [*model.named_parameters(), *model.named_buffers()]:
        if values.is_floating_point() and bool(values.isnan().any()):
            why = f"{tensor} gets no values before training; take @permuted"
            raise InputError(f"model {name!r} has no untrained control: {why}")
    return model


def _is_drawn_in_order(sketch) -> bool:
    """Whether transformers' initialization writes every weight, and draws none of the trunk after the blocks."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):
        """Records which memory is written to in place, and in which order random numbers are."""

        written: set[int] = set()
        drawn: list[int] = []

        def __torch_dispatch__(self, operation, types, arguments=(), options=None):
            if operation._schema.is_mutable:
                self.written.add(_memory(arguments[0]))
                if torch.Tag.nondeterministic_seeded in operation.tags:
                    self.drawn.append(_memory(arguments[0]))
            return operation(*arguments, **(options or {}))

    trunk = blocks.trunk(sketch)
    try:
        path = blocks.find(trunk, blocks.depth(sketch.config))
    except (InputError, AttributeError):
        return False
    for part in [*trunk.modules(), *trunk.parameters(), *trunk.buffers()]:
        part._is_hf_initialized = False
    with Recorder() as writes:
        trunk.initialize_weights()  # a head may share its weights with the embeddings
    inside = {_memory(weights) for weights in trunk.get_submodule(path).parameters()}
    own = {_memory(weights) for weights in [*trunk.parameters(), *trunk.buffers()]}
    drawn = [memory in inside for memory in writes.drawn if memory in own]
    return own <= writes.written and drawn == sorted(drawn)


def _memory(tensor) -> int:
    return tensor.untyped_storage()._cdata


def permute(model, seed: int) -> None:
    """Put the weights of each tensor of a network into random order, in place."""
    prefix = next(name for name, part in model.named_modules() if part is blocks.trunk(model))
    for name, weights in model.named_parameters():
        # by name, without the part that only a model with head has: so it is the same for fewer blocks
        digest = hashlib.sha256(f"{seed}\0{name.removeprefix(f'{prefix}.')}".encode()).digest()
        random = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        with torch.no_grad():
            weights.copy_(weights.flatten()[torch.randperm(weights.numel(), generator=random)].view_as(weights))
