"""The head: what a whole model predicts of each token, and how far apart its logits are."""

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from token_geometry.base import InputError
from token_geometry.states.stream import Stream

CHUNK = 256  # positions that the head is applied to at a time
VOCABULARY_CHUNK = 8192  # entries of the vocabulary that a sum over all of them takes at a time
LENS_SHARE = 0.1  # share of the products of a pass that the latent predictions of all layers may take
IN_CACHE = 1024  # entries of the vocabulary whose logits, of `CHUNK` positions, stay in a core's cache


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

        `ids` has shape (n_tokens,), and `last`, the states that the head is applied to, (n_tokens, width)."""
        if self.is_all(ids):
            return self.predicted(last[:-1], ids[1:])
        return loss_and_entropy([self._logits_of_transformers(ids)[:-1]], ids[1:]).cpu().numpy()

    def lens(self, ids: torch.Tensor, layers: Sequence[torch.Tensor], last: torch.Tensor) -> np.ndarray:
        """Loss and entropy of what each layer predicts through final norm and head, nats, shape (2, layer).

        The logit lens (nostalgebraist, 2020), or the tuned lens that was given: means over positions that a seed
        draws, the same in prompts of one length, as many as `LENS_SHARE` allows. `ids` has shape (n_tokens,), each
        of `layers` and `last`, which the head is applied to, (n_tokens, width). NaN where the logits are not what
        the head makes of the last states, or no module is the final norm; an `InputError` if a lens was given."""
        if (norm := self._stream.norm) is None or not self.is_all(ids):
            if self._tuned:
                reason = "whose logits are not what one final norm and the head make of its states: leave it out"
                raise InputError(f"tuned_lens is given for model {self._stream.name!r}, {reason}")
            return np.full((2, len(layers)), np.nan)
        place = self._lens_positions(len(ids), len(layers))
        device = getattr(norm, "weight", last).device
        # the last layer may be there before the norm or after it
        states = [self._translated(layer[place], number) for number, layer in enumerate(layers[:-1])]
        latent = [norm(state.to(device)).to(last) for state in states] + [last[place]]
        found = self.predicted(torch.cat(latent), ids[place + 1].repeat(len(layers)))
        return found.reshape(2, len(layers), -1).mean(2)

    def predicted(self, rows: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """Loss of targets and entropy of what the head predicts from rows, nats, float64, shape (2, n).

        `rows` are states that the head is applied to, shape (n, width). It is meant where `is_all`."""
        # on a CPU a block of logits is done with before it has left the cache; a GPU waits for small operations
        is_split = isinstance(self._linear, torch.nn.Linear) and rows.device.type == "cpu"
        parts = []
        for some, chosen in zip(rows.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = self._products(some, IN_CACHE) if is_split else [self._logits(some).float()]
            parts.append(loss_and_entropy(logits, chosen))
        return torch.cat(parts, 1).cpu().numpy()

    def _translated(self, states: torch.Tensor, layer: int) -> torch.Tensor:
        # a stream may keep float32 where the weights are shorter
        tuned = [part.to(states) for part in self._tuned[layer]] if self._tuned else []
        return states + functional.linear(states, *tuned) if tuned else states

    def _lens_positions(self, n_tokens: int, n_layers: int) -> torch.Tensor:
        head = self.model.get_output_embeddings().weight.numel()
        # embeddings, which are no product, are as large as the head, which is one
        whole = sum(weights.numel() for weights in self._trunk.parameters())
        n_positions = int(LENS_SHARE * n_tokens * whole / (n_layers * head))
        drawn = 1 + np.random.default_rng(0).permutation(n_tokens - 2)  # the first may be BOS
        return torch.from_numpy(np.sort(drawn[: max(1, n_positions)])).to(self.model.device)

    def cloud(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Points as far from one another as the logits of the tokens, float32, shape (n_tokens, n)."""
        is_linear = isinstance(self._linear, torch.nn.Linear) and self.is_all(ids)
        if is_linear and not self._cap:
            points = self._fit(last).double() @ self._isometry
        else:
            columns: Iterable[torch.Tensor] = self._products(last, VOCABULARY_CHUNK)
            if not is_linear:
                columns = self._logits_of_transformers(ids).float().split(VOCABULARY_CHUNK, dim=1)
            points = _root(_gram((part - part.mean(0)).T for part in columns))
        return (points - points.mean(0)).float()

    @functools.cached_property
    def _isometry(self) -> torch.Tensor:
        # |W a - W b|² = (a - b)ᵀ WᵀW (a - b); the bias is the same for all tokens
        return _root(_gram(self._linear.weight.split(VOCABULARY_CHUNK), n_steps=5))

    def _products(self, last: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """Logits of so many entries of the vocabulary at a time."""
        weights, bias, rows = self._linear.weight.split(size), self._linear.bias, self._fit(last)
        for weight, part in zip(weights, [None] * len(weights) if bias is None else bias.split(size), strict=True):
            yield self._capped(functional.linear(rows, weight, part)).float()

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

    def is_all(self, ids: torch.Tensor) -> bool:
        """Whether the logits are what the head alone makes of the last states; `ids` has shape (n_tokens,)."""
        # A few families scale their logits after the head. They are found by
        # comparison, so that no list of families can be out of date.
        if self._is_known is None:
            short = ids[:8]
            last = self._trunk(short[None], use_cache=False)[0][0]
            logits = self._logits_of_transformers(short).float()
            self._is_known = torch.allclose(self._logits(last).float(), logits, rtol=1e-3, atol=1e-3)
        return bool(self._is_known)


def loss_and_entropy(columns: Iterable[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the targets and entropy, float64, shape (2, n), of logits that come columns at a time.

    Each of `columns` has shape (n, m), m entries of the vocabulary behind those before, and is overwritten. Sums
    are taken relative to the largest logit so far, and shrunk when a larger one comes."""
    start, top, total, weighted, chosen = 0, None, 0.0, 0.0, 0.0
    for logits in (part.float() for part in columns):
        n_columns, largest = logits.shape[1], logits.amax(1)
        place = targets.to(logits.device).long() - start
        own = logits.gather(1, place.clamp(0, n_columns - 1)[:, None])[:, 0].double()
        chosen = torch.where((place >= 0) & (place < n_columns), own, chosen)
        high = largest if top is None else torch.maximum(top, largest)
        logits -= high[:, None]
        weights = logits.exp()
        if top is not None:
            fall = (top - high).double()
            total, weighted = fall.exp() * total, fall.exp() * (weighted + fall * total)
        # of probabilities p = w / total: -Σ p log p = log total - Σ w z / total
        total = total + weights.sum(1).double()
        weighted = weighted + logits.mul_(weights).sum(1).double()
        top, start = high, start + n_columns
    logarithm = torch.log(total)
    return torch.stack([logarithm + high.double() - chosen, logarithm - weighted / total])


def _gram(parts: Iterable[torch.Tensor], n_steps: int = 1) -> torch.Tensor:
    """Sum of the Gram matrices of the columns of each part, float64; in several steps, half of it is computed."""
    total = torch.zeros(())
    for part in (part.double() for part in parts):
        step = -(-part.shape[1] // n_steps)
        rows = [some.T @ part[:, n * step :] for n, some in enumerate(part.split(step, dim=1))]
        total = total + torch.cat([functional.pad(row, (part.shape[1] - row.shape[1], 0)) for row in rows])
    return total.triu() + total.triu(1).T if n_steps > 1 else total


def _root(gram: torch.Tensor) -> torch.Tensor:
    """Rows with the scalar products that a matrix holds."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()
