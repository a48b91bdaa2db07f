"""Blocks: where a network keeps them, and a network that has the first few only."""

from token_geometry.base.errors import InputError


def find(trunk, n_layers: int) -> str:
    """Name, inside a network without head, of the list of its blocks.

    Parameters
    ----------
    trunk
        A transformers model without head.
    n_layers
        How many blocks it has.

    Raises
    ------
    InputError
        If it keeps its blocks in no list of this length.
    """
    import torch

    inside = {id(module) for module in trunk.get_decoder().modules()}
    lists = [
        name
        for name, module in trunk.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers and id(module) in inside
    ]
    if not lists:
        raise InputError(
            f"{type(trunk).__name__} keeps its {n_layers} blocks in no list: it can be read "
            "only whole (n_layers None), with final_norm"
        )
    # experts and the like, of which there may be as many, lie inside a block
    return min(lists, key=lambda name: name.count("."))


def first(kind: type, path: str, n_blocks: int) -> type:
    """The class `kind`, except that its models end after `n_blocks` blocks.

    The network is laid out from the configuration of the whole model and then cut. So what a
    family derives from its depth (the scale of the residuals in MiniCPM, the blocks that share
    keys in Gemma 4) stays what it is in the whole model. transformers lays a network out without
    memory for its weights: the blocks that are cut off cost nothing.

    Parameters
    ----------
    kind
        Class of a transformers model without head.
    path
        Name of the list of its blocks, from `find`.
    n_blocks
        How many blocks to keep.
    """

    def __init__(self, config, *arguments, **options):
        kind.__init__(self, config, *arguments, **options)
        del self.get_submodule(path)[n_blocks:]

    # transformers looks up by these names what it records of a network, and whose code it is
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {"__init__": __init__} | names)
