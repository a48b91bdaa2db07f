"""The head: what a whole model predicts of each token, and how far apart its logits are."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from token_geometry.base import InputError
from token_geometry.states.stream import Stream

CHUNK = 256
"""Positions whose logits are held at a time; a vocabulary of 262k takes 1 MB per position."""

VOCABULARY_CHUNK = 8192
"""Entries of the vocabulary that a sum over all of them takes at a time."""

LENS_SHARE = 0.1
"""Share of the products of a pass that the latent predictions of all layers may take."""

# as many logits as stay in a core's cache: passes over more of them wait for memory
_IN_CACHE = 1 << 18


class Head:
    """The head of a whole model of transformers, whose blocks `stream` reads; `tuned` is of `tuned_lens.read`."""

    def __init__(self, model, stream: Stream, tuned: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()):
        self.model, self._stream, self._trunk = model, stream, stream.trunk
        self._tuned = [[part.to(model.device, model.dtype) for part in pair] for pair in tuned]
        self._linear = model.get_output_embeddings()
        self._cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self._is_known: bool | None = None

    def predictions(self, ids: torch.Tensor, last: torch.Tensor) -> np.ndarray:
        """Loss of every token but the first and entropy of its prediction, nats, float64, shape (2, n_tokens - 1).

        `ids` has shape (n_tokens,), and `last`, the states that the head is applied to, (n_tokens, width).
        """
        rows, to_logits = last, self._logits
        if not self._is_all(ids):
            rows, to_logits = self._logits_of_transformers(ids), torch.nn.Identity()
        return _in_chunks(to_logits, rows[:-1], ids[1:]).cpu().numpy()

    def lens(self, ids: torch.Tensor, layers: Sequence[torch.Tensor], last: torch.Tensor) -> np.ndarray:
        """Loss and entropy of what each layer predicts through final norm and head, nats, shape (2, layer).

        The logit lens (nostalgebraist, 2020), or the tuned lens that was given: means over positions that a
        seed draws, the same in prompts of one length, as many as `LENS_SHARE` allows. `ids` has shape
        (n_tokens,), each of `layers` and `last`, which the head is applied to, (n_tokens, width). NaN where the
        logits are not what the head makes of the last states, or no module is the final norm; an `InputError`
        if a lens was given.
        """
        norm = self._stream.norm
        if norm is None or not self._is_all(ids):
            if self._tuned:
                reason = "whose logits are not what one final norm and the head make of its states: leave it out"
                raise InputError(f"tuned_lens is given for model {self._stream.name!r}, {reason}")
            return np.full((2, len(layers)), np.nan)
        place = self._lens_positions(len(ids), len(layers))
        device = getattr(norm, "weight", last).device
        # the last layer may be there before the norm or after it
        states = [self._translated(layer[place], number) for number, layer in enumerate(layers[:-1])]
        latent = [norm(state.to(device)).to(last) for state in states] + [last[place]]
        found = _in_chunks(self._logits, torch.cat(latent), ids[place + 1].repeat(len(layers)))
        return found.reshape(2, len(layers), -1).mean(2).cpu().numpy()

    def _translated(self, states: torch.Tensor, layer: int) -> torch.Tensor:
        if not self._tuned:
            return states
        # a stream may keep float32 where the weights are shorter
        return states + functional.linear(states, *(part.to(states) for part in self._tuned[layer]))

    def _lens_positions(self, n_tokens: int, n_layers: int) -> torch.Tensor:
        head = self.model.get_output_embeddings().weight.numel()
        # embeddings, which are no product, are as large as the head, which is one
        whole = sum(weights.numel() for weights in self._trunk.parameters())
        n_positions = int(LENS_SHARE * n_tokens * whole / (n_layers * head))
        drawn = 1 + np.random.default_rng(0).permutation(n_tokens - 2)  # the first may be BOS
        return torch.from_numpy(np.sort(drawn[: max(1, n_positions)])).to(self.model.device)

    def cloud(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Points as far from one another as the logits of the tokens, float32, shape (n_tokens, n)."""
        is_linear = isinstance(self._linear, torch.nn.Linear) and self._is_all(ids)
        if is_linear and not self._cap:
            points = self._fit(last).double() @ self._isometry
        else:
            columns = self._columns(ids, last, is_linear)
            points = _root(_gram((part - part.mean(0)).T for part in columns))
        return (points - points.mean(0)).float()

    @functools.cached_property
    def _isometry(self) -> torch.Tensor:
        # |W a - W b|² = (a - b)ᵀ WᵀW (a - b); the bias is the same for all tokens
        return _root(_gram(self._linear.weight.split(VOCABULARY_CHUNK)))

    def _columns(self, ids: torch.Tensor, last: torch.Tensor, is_linear: bool) -> Iterator[torch.Tensor]:
        if not is_linear:
            yield from self._logits_of_transformers(ids).float().split(VOCABULARY_CHUNK, dim=1)
            return
        weights, bias = self._linear.weight.split(VOCABULARY_CHUNK), self._linear.bias
        biases = [None] * len(weights) if bias is None else bias.split(VOCABULARY_CHUNK)
        for weight, part in zip(weights, biases, strict=True):
            yield self._capped(functional.linear(self._fit(last), weight, part)).float()

    def _logits(self, last: torch.Tensor) -> torch.Tensor:
        return self._capped(self._linear(self._fit(last)))

    def _fit(self, last: torch.Tensor) -> torch.Tensor:
        # blocks of a model that is spread over GPUs lie on several, and Mamba keeps float32 in its stream
        weight = getattr(self._linear, "weight", last)
        return last.to(weight.device, weight.dtype)

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.tanh(logits / self._cap) * self._cap if self._cap else logits

    def _logits_of_transformers(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids[None], use_cache=False).logits[0]

    def _is_all(self, ids: torch.Tensor) -> bool:
        """Whether the logits are what `_logits` makes of the last states."""
        # A few families scale their logits after the head. They are found by
        # comparison, so that no list of families can be out of date.
        if self._is_known is None:
            short = ids[:8]
            last = self._trunk(short[None], use_cache=False)[0][0]
            logits = self._logits_of_transformers(short).float()
            self._is_known = torch.allclose(self._logits(last).float(), logits, rtol=1e-3, atol=1e-3)
        return bool(self._is_known)


def _in_chunks(to_logits: Callable, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Loss and entropy of the logits of rows, `CHUNK` at a time, shape (2, n)."""
    parts = []
    for some, chosen in zip(rows.split(CHUNK), targets.split(CHUNK), strict=True):
        logits = to_logits(some).float()
        parts.append(loss_and_entropy(logits, chosen.to(logits.device)))
    return torch.cat(parts, 1)


def loss_and_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the targets and entropy, float64, shape (2, n); the logits are overwritten."""
    on_cpu = logits.device.type == "cpu"
    n_rows = max(1, _IN_CACHE // logits.shape[1]) if on_cpu else len(logits)
    parts = []
    for rows, chosen in zip(logits.split(n_rows), targets.split(n_rows), strict=True):
        # as transformers takes it: in float32, which at 262144 entries loses two units of the fifth digit
        loss = functional.cross_entropy(rows, chosen, reduction="none").double()
        rows -= rows.amax(1, keepdim=True)
        weights = rows.exp()
        total = weights.sum(1).double()
        # of probabilities p = w / total: -Σ p log p = log total - Σ w z / total
        mean = torch.linalg.vecdot(weights, rows).double() / total
        parts.append(torch.stack([loss, total.log() - mean]))
    return torch.cat(parts, 1)


def _gram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sum of the Gram matrices of the columns of each part, float64."""
    return sum((part.T @ part for part in (part.double() for part in parts)), torch.zeros(()))


def _root(gram: torch.Tensor) -> torch.Tensor:
    """Rows with the scalar products that a matrix holds."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()
