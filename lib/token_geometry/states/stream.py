"""The residual stream of a network: what goes into its first block, and what each block hands on.

transformers' `hidden_states` mean this in most families, and something else in others (in Mamba they begin
after the first block). Read at the blocks themselves, a layer means the same in every family, whether the
model is loaded whole or in part."""

import contextlib
import functools
import threading

import torch
from accelerate.utils.memory import should_reduce_batch_size

from token_geometry.base import InputError
from token_geometry.models import blocks

_N_CHECKED, _N_SHARED = 8, 2  # tokens of the two texts that show a model's behavior, and those both begin with
_ROUND_OFF = 1e-3  # largest relative difference of states in float32 that counts as none

# several threads pass prompts through one model at a time
_thread = threading.local()


class Stream:
    """The blocks of a loaded model, which are read while a text passes through them.

    The model is a whole one of transformers, or one cut after its first blocks, of which `n_layers` is the index
    of the last state that is wanted. Errors call it by `name`."""

    def __init__(self, model, *, name: str, n_layers: int | None):
        self.model, self.name, self.is_whole = model, name, n_layers is None
        self._what = f"model {name!r} is a {type(model).__name__}"
        self.trunk = blocks.trunk(model)
        n_blocks = blocks.depth(model.config) if n_layers is None else max(n_layers, 1)
        found = self.trunk.get_submodule(blocks.find(self.trunk, n_blocks))
        self.n_layers = len(found) if n_layers is None else n_layers
        """Index of the last state: the number of blocks, or fewer if so many were asked for."""
        self.blocks = list(found)
        for place, block in enumerate(found):
            block.register_forward_pre_hook(functools.partial(_entered, place), with_kwargs=True)
            block.register_forward_hook(functools.partial(_left, place))
        self._alone: bool | None = None

    @torch.inference_mode()
    def read(
        self, ids: torch.Tensor, *, final_norm: bool = True, **more
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Pass texts of one length through the model, given as token ids, shape (n_texts, n_tokens).

        With `final_norm` the last state of a whole model is taken after the final norm. `more` is what the
        network takes besides: `position_ids`, `attention_mask`. Returns the input of the first block and the
        output of each, and what the head is applied to, each of shape (n_texts, n_tokens, width).

        Raises `InputError` if a token is outside of the vocabulary, later tokens change the states of earlier
        ones, the model has no residual stream, or its last state has another width."""
        device, n_vocabulary = self.model.device, blocks.vocabulary(self.model.config)
        if int(ids.max()) >= n_vocabulary:
            raise InputError(
                f"token id {int(ids.max())} is outside the vocabulary of {self.name!r} "
                f"({n_vocabulary} entries): its tokenizer belongs to another model"
            )
        ids, more = ids.to(device), {name: tensor.to(device) for name, tensor in more.items()}
        if self._alone is None:
            self._alone = self._check_behavior(ids)
        if len(ids) == 1 or more or not self._alone:
            layers, last = self._pass(ids, **more)
        else:
            passes = [self._pass(row[None]) for row in ids]
            layers = [torch.cat(layer) for layer in zip(*(layers for layers, _ in passes), strict=True)]
            last = torch.cat([last for _, last in passes])
        # the blocks of a model that is spread over GPUs leave their states on several
        layers = [layer.to(device) for layer in layers[: self.n_layers + 1]]
        if self.is_whole and final_norm:
            layers[-1] = last.to(device)
        if layers[-1].shape != layers[0].shape:
            raise InputError(
                f"model {self.name!r} gives its last hidden state another width ({layers[-1].shape[-1]}, not "
                f"{layers[0].shape[-1]}): take layers 0 to {self.n_layers - 1}, or in an extraction the state "
                "before, with final_norm = false"
            )
        return layers, last

    @functools.cached_property
    def norm(self) -> torch.nn.Module | None:
        """What stands between the last block and the head: the final norm; None where it is no single module."""
        # found by comparison, so that no list of families can be out of date
        states, last = self._pass(torch.arange(_N_CHECKED, device=self.model.device)[None])
        if torch.equal(states[-1], last):
            return torch.nn.Identity()
        for module in reversed(list(self.trunk.modules())):
            weight = getattr(module, "weight", None)
            if weight is None or weight.shape != last.shape[-1:]:
                continue
            with contextlib.suppress(TypeError, RuntimeError):
                if torch.equal(module(states[-1].to(weight.device)).to(last.device), last):
                    return module
        return None

    def _pass(self, ids: torch.Tensor, **more) -> tuple[list[torch.Tensor], torch.Tensor]:
        _thread.states, _thread.is_chain = [], True
        try:
            last = self.trunk(ids, use_cache=False, **more)[0]
            states, is_chain = _thread.states, _thread.is_chain
        except Exception as error:
            if more or isinstance(error, MemoryError) or should_reduce_batch_size(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"model {self.name!r} could not read {ids.shape[1]} tokens in {self.model.dtype} ({reason}): "
                "transformers' model fails; take another dtype, fewer tokens or another model"
            ) from None
        finally:
            _thread.states = None
        if not is_chain or len(states) != max(self.n_layers, 1) + 1:
            raise InputError(
                f"{self._what}, whose blocks do not hand their states on to one another: it has no residual "
                "stream to measure; choose another model"
            )
        for state in states:
            if state.shape != (*ids.shape, state.shape[-1]):
                raise InputError(
                    f"{self._what}, whose blocks hand on states of shape {tuple(state.shape)} for {ids.shape[1]} "
                    f"tokens of {len(ids)} text(s): it has no residual stream of one vector per token; choose "
                    "another model"
                )
        return states, last

    def _check_behavior(self, ids: torch.Tensor) -> bool:
        """Whether texts have to pass alone, since those beside them change their states."""
        # Found by comparison, so that no list of families can be out of date: of two texts of the same
        # length that begin alike, side by side, and of one alone.
        text = ids[0].repeat(_N_CHECKED)[:_N_CHECKED]
        other = torch.cat([text[:_N_SHARED], text[_N_SHARED:].flip(0)])
        if torch.equal(text, other):
            other[_N_SHARED:] = (text[-1] + 1) % blocks.vocabulary(self.model.config)
        both, _ = self._pass(torch.stack([text, other]))
        alone, _ = self._pass(text[None])
        unit = torch.finfo(self.model.dtype).eps
        noise = max(_differ(a[0], b[0]) for a, b in zip(both, alone, strict=True))
        leak = max(_differ(layer[1, :_N_SHARED], layer[0, :_N_SHARED]) for layer in both)
        # experts take sums in an order that depends on how many tokens they are given
        if leak > max(_ROUND_OFF, unit, 4 * noise):
            raise InputError(
                f"{self._what} that sees the tokens behind a token (an encoder, or trained to fill gaps): a loss "
                "of the next token means nothing, and states depend on what stands behind; choose a causal "
                "language model"
            )
        return noise > max(_ROUND_OFF, 4 * unit)


def _differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """Length of the difference of two states, relative to the second."""
    one, other = one.float(), other.float()
    return float((one - other).norm() / other.norm().clamp(min=torch.finfo(torch.float32).tiny))


def _entered(place: int, block, arguments: tuple, options: dict) -> None:
    if (states := getattr(_thread, "states", None)) is None:
        return
    state = first_tensor(arguments or options.get("hidden_states", tuple(options.values())))
    if place == 0 and not states:
        states.append(state)
    # a state moves on to the next GPU where a model is spread over several
    elif len(states) != place + 1 or not (states[-1] is state or torch.equal(states[-1].to(state.device), state)):
        _thread.is_chain = False


def _left(place: int, block, arguments: tuple, output) -> None:
    if (states := getattr(_thread, "states", None)) is not None:
        states.append(first_tensor(output))


def first_tensor(output) -> torch.Tensor:
    """The states in what a block takes or gives: alone, or first in a tuple, a list or another output."""
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output
