"""Blocks: how many a configuration counts, where a network keeps them, and a network with the first few only."""

from token_geometry.base import InputError, files
from token_geometry.base.lazy import torch, transformers

_CONTEXTS = files.table(__file__)["contexts"]


def depth(config) -> int:
    """Blocks a configuration gives its decoder of text; `InputError` if it is of no causal language model."""
    vocabulary(config)
    # the decoder of BART, alone or in the whole, counts by the first name
    return _number(config, "decoder_layers", "num_decoder_layers", "num_hidden_layers")


def vocabulary(config) -> int:
    """Number of tokens that a configuration gives its decoder of text; else as `depth`."""
    return _number(config, "vocab_size")


def context(config) -> int | None:
    """Tokens that a model reads at once at most; None where its configuration sets no limit."""
    found = (getattr(_text(config), name, None) for name in _CONTEXTS)
    return min((length for length in found if isinstance(length, int) and length > 0), default=None)


def trunk(model):
    """The network of a transformers model without its head."""
    if model.base_model is not model or model.get_output_embeddings() is None:
        return model.base_model
    # Llama 4 has no part of the name that it gives
    return next(part for part in model.children() if hasattr(part, "base_model"))


def find(trunk, n_layers: int) -> str:
    """Name, inside a network without head, of the list of its blocks; its configuration counts `n_layers`.
    `InputError` if it keeps its blocks in no list of this length, nor in the only list there is."""
    inside = {id(module) for module in trunk.get_decoder().modules()}
    every = ((name, part) for name, part in trunk.named_modules() if isinstance(part, torch.nn.ModuleList))
    lists = {name: len(part) for name, part in every if id(part) in inside}
    # experts and the like, of which there may be as many, lie inside a block
    if fitting := [name for name, length in lists.items() if length == n_layers]:
        return min(fitting, key=lambda name: name.count("."))
    top = min((name.count(".") for name in lists), default=0)
    if len(outermost := [name for name in lists if name.count(".") == top]) != 1:
        problem = f"{type(trunk).__name__} keeps its {n_layers} blocks in no list: a network whose blocks"
        raise InputError(f"{problem} do not follow on one another has no layers to compare; choose another model")
    return outermost[0]  # LongCat counts a block twice, since it holds two attentions


def network(config, n_blocks: int | None):
    """Class of a network, the configuration it takes, and a sketch without weights.

    It keeps `n_blocks` of the blocks, without a head; None: all of them and the head. Raises `InputError` if
    the network cannot be cut there."""
    with torch.device("meta"):  # which has shapes and no weights
        sketch = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if n_blocks is None:
        return type(sketch), sketch.config, sketch
    whole, sketch = sketch, trunk(sketch)
    path = find(sketch, depth(config))
    if n_blocks >= (found := len(sketch.get_submodule(path))):
        there = f"the network has {found} blocks, where its configuration counts {depth(config)}"
        way_out = f"take a layer up to {found - 1}, or the whole model"
        raise InputError(f"layer {n_blocks} is asked for, and {there}: {way_out}")
    prefix = next(name for name, part in whole.named_modules() if part is sketch)
    return _first(sketch, path, n_blocks, prefix), sketch.config, sketch


def _number(config, *names: str) -> int:
    for name in names:
        if isinstance(number := getattr(_text(config), name, None), int):
            return number
    problem = f"a model of type {config.model_type!r} is no causal language model of text tokens"
    raise InputError(f"{problem}: its configuration has no single {names[-1]}; choose another model")


def _text(config):
    try:
        # of a model with encoder and decoder, the causal one is the decoder
        return config.get_text_config(decoder=True)
    except ValueError:  # there are several
        return None


def _first(sketch, path: str, n_blocks: int, prefix: str) -> type:
    """The class of a network, except that its models end after `n_blocks` blocks.

    The network is laid out from the configuration of the whole model and then cut. So what a family derives
    from its depth (the scale of the residuals in MiniCPM, the blocks that share keys in Gemma 4) stays what it
    is in the whole model. transformers lays a network out without memory for its weights: the blocks that are
    cut off cost nothing. `path`: name of the list of blocks; `prefix`: name of the network inside of the whole
    model, which the names of weights begin with."""
    kind, parts = type(sketch), {name for name, _ in sketch.named_children()}

    def __init__(self, config, *arguments, **options):
        kind.__init__(self, config, *arguments, **options)
        del self.get_submodule(path)[n_blocks:]
        for name in {name for name, _ in self.named_children()} - parts:
            setattr(self, name, None)  # the pooler of BERT, which a model with a head does not have
        names = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        tied = self.all_tied_weights_keys.items()  # blocks of Zamba share weights
        self.all_tied_weights_keys = {one: other for one, other in tied if {one, other} <= names}

    # transformers looks up by these names what it records of a network, and whose code it is
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {"__init__": __init__, "base_model_prefix": prefix} | names)
