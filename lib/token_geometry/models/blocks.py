"""Blocks: where a network keeps them, how many there are, and a network that has the first few only."""

from token_geometry.base.errors import InputError

_CONTEXTS = ("max_position_embeddings", "max_target_positions", "max_seq_len", "model_max_length")


def depth(config) -> int:
    """Number of blocks that a configuration gives its decoder of text."""
    return _text(config).num_hidden_layers


def context(config) -> int | None:
    """Tokens that a model reads at once at most; None where its configuration sets no limit."""
    found = (getattr(_text(config), name, None) for name in _CONTEXTS)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def trunk(model):
    """The network of a transformers model without its head."""
    # a few families have no such part by the name that they give: `base_model` is the model itself
    return model.get_decoder() if model.base_model is model else model.base_model


def find(trunk, n_layers: int) -> str:
    """Name, inside a network without head, of the list of its blocks.

    Parameters
    ----------
    trunk
        A transformers model without head.
    n_layers
        How many blocks its configuration counts.

    Raises
    ------
    InputError
        If it keeps its blocks in no list of this length, nor in the only list there is.
    """
    import torch

    inside = {id(module) for module in trunk.get_decoder().modules()}
    lists = {
        name: len(module)
        for name, module in trunk.named_modules()
        if isinstance(module, torch.nn.ModuleList) and id(module) in inside
    }
    # experts and the like, of which there may be as many, lie inside a block
    fitting = [name for name, length in lists.items() if length == n_layers]
    if fitting:
        return min(fitting, key=lambda name: name.count("."))
    top = min((name.count(".") for name in lists), default=0)
    outermost = [name for name in lists if name.count(".") == top]
    if len(outermost) != 1:
        raise InputError(
            f"{type(trunk).__name__} keeps its {n_layers} blocks in no list: a network whose blocks do not "
            "follow on one another has no layers to compare; choose another model"
        )
    return outermost[0]  # LongCat counts a block twice, since it holds two attentions


def network(config, n_blocks: int | None):
    """Class of a network, the configuration it takes, and a sketch without weights.

    Parameters
    ----------
    config
        Of the model.
    n_blocks
        How many of its blocks to keep, without a head; None: all of them and the head.

    Raises
    ------
    InputError
        If the network cannot be cut there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # which has shapes and no weights
        sketch = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if n_blocks is None:
        return type(sketch), sketch.config, sketch
    sketch = trunk(sketch)
    path = find(sketch, depth(config))
    found = len(sketch.get_submodule(path))
    if n_blocks >= found:
        raise InputError(
            f"layer {n_blocks} is asked for, and the network has {found} blocks, where its configuration counts "
            f"{depth(config)}: take a layer up to {found - 1}, or the whole model"
        )
    return _first(type(sketch), path, n_blocks), sketch.config, sketch


def _text(config):
    # of a model with encoder and decoder, the causal one is the decoder
    return config.get_text_config(decoder=True)


def _first(kind: type, path: str, n_blocks: int) -> type:
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
