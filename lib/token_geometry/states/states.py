"""Hidden states of prompts: the one place that touches transformers' internals."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from token_geometry.base.errors import InputError
from token_geometry.models import blocks, models
from token_geometry.states import prefix_trees

BATCH_TOKENS = 768
"""Tokens of short texts that are read at a time; more are no faster on a CPU, whose caches they leave."""

TREE_TOKENS = 192
"""Tokens of texts that share their beginnings, which see one another: attention grows with the square."""

TREES_AT_ONCE = 6
"""How many such groups are read at a time."""

HEAD_CHUNK = 256
"""Positions whose logits are held at a time; a vocabulary of 262k takes 1 MB a position."""

VOCABULARY_CHUNK = 8192
"""Entries of the vocabulary that a sum over all of them takes at a time."""

# as many logits as stay in a core's cache: passes over more of them wait for memory
_IN_CACHE = 1 << 18


@dataclass(frozen=True)
class States:
    """What one forward pass leaves of one prompt."""

    hidden: torch.Tensor
    """Hidden states by their index in transformers' `hidden_states`, float32, without the BOS
    position, shape (n_layers + 1, n_tokens, width). 0: embeddings; l: the residual stream after l
    blocks, before any final norm; L, where the model is whole: after the final norm, or before it if
    that was asked for. The book's chapter on methods translates other ways of counting (tbl-index)."""

    token_loss: np.ndarray
    """Cross-entropy of each token given those before it, nats, shape (n_tokens,); NaN for a first
    token that nothing precedes, and for all of them where the model was loaded in part."""

    loss: float
    """Mean of `token_loss` over the tokens that were predicted, as transformers takes it."""

    token_entropy: np.ndarray
    """Entropy of the distribution that predicted each token, nats; shape and NaN as of `token_loss`."""

    entropy: float
    """Mean of `token_entropy` over the tokens that were predicted."""

    logits: torch.Tensor | None = None
    """If asked for: points that are as far from one another as the logits of the tokens are, float32,
    shape (n_tokens, n), without the BOS position; n is the width where the head is linear, else n_tokens.
    The logits themselves would be as wide as the vocabulary."""


class LanguageModel:
    """A loaded model, ready to turn token ids into hidden states.

    Parameters
    ----------
    source
        From `models.resolve`.
    dtype
        Type of the weights and of the forward pass.
    device
        A torch device or `auto`.
    n_layers
        Index of the last hidden state that is wanted: so many blocks are built and read, and no more
        of the files than they need. Such a model has no head, and so no loss. None, or the number of
        the model's blocks: the whole model.
    devices
        Devices that the model is spread over, in place of `device`; see `placement.devices`.
    """

    def __init__(
        self,
        source: models.ModelSource,
        *,
        dtype: str = "float32",
        device: str = "auto",
        n_layers: int | None = None,
        devices: Sequence[str] = (),
    ):
        self.source = source
        self.device = models.choose_device(devices[0] if devices else device)
        self.devices: list[str] = list(devices) or [self.device]
        """Devices of the weights; states are gathered on the first."""
        config = models.load_config(source)
        self.is_whole = models.is_whole(source, config, n_layers)
        self.n_layers: int = config.get_text_config().num_hidden_layers if n_layers is None else n_layers
        """Index of the last hidden state: the number of blocks L, or fewer if so many were asked for."""
        self.tokenizer = models.load_tokenizer(source)
        self.model = models.load_model(
            source, dtype=dtype, device=self.device, n_layers=n_layers, devices=self.devices
        )
        self.prepend_bos = models.needs_bos(source, self.model.config.model_type)
        self._head_is_known: bool | None = None
        self._isometry: torch.Tensor | None = None
        self._shares_prefixes: bool | None = None
        if self.prepend_bos and self.tokenizer.bos_token_id is None:
            raise InputError(
                f"model {source.name!r} needs a BOS token and its tokenizer has none: "
                "set prepend_bos: false for it in data/models.yml"
            )

    def forward(self, token_ids: np.ndarray, *, final_norm: bool = True, logits: bool = False) -> States:
        """Hidden states, loss and entropy of one prompt, of shape (n_tokens,); see `forward_batch`."""
        (states,) = self.forward_batch(np.asarray(token_ids)[None], final_norm=final_norm, logits=logits)
        return states

    @torch.inference_mode()
    def forward_batch(
        self, token_ids: np.ndarray, *, final_norm: bool = True, logits: bool = False
    ) -> list[States]:
        """Hidden states, loss and entropy of prompts of one length, in one pass.

        Parameters
        ----------
        token_ids
            Shape (n_prompts, n_tokens), without special tokens; BOS is prepended here
            where the model needs it, and its position dropped from what is
            returned. The token after BOS counts in the loss.
        final_norm
            Whether the last state of a whole model, of index L, is the one after the final norm, as
            transformers has it; else it is the residual stream that the norm is applied to. The
            states below L are before the norm in any case, in a model loaded in part all of them.
        logits
            Whether to return the cloud of the logits; a model loaded in part has none.

        Raises
        ------
        InputError
            If a token lies outside the model's vocabulary, or there are more than the model can read.
        """
        models.check_length(self.source, self.model.config, np.shape(token_ids)[1])
        ids = torch.from_numpy(np.asarray(token_ids, dtype=np.int64)).to(self.device)
        n_vocabulary = self.model.get_input_embeddings().num_embeddings
        if int(ids.max()) >= n_vocabulary:
            raise InputError(
                f"token id {int(ids.max())} is outside the vocabulary of {self.source.name!r} "
                f"({n_vocabulary} entries): its tokenizer belongs to another model"
            )
        if self.prepend_bos:
            ids = torch.cat([ids.new_full((len(ids), 1), self.tokenizer.bos_token_id), ids], dim=1)
        layers, normed = self._states(ids, final_norm=final_norm)
        return [
            self._states_of_one(line, [layer[row] for layer in layers], normed[row], logits=logits)
            for row, line in enumerate(ids)
        ]

    def _states_of_one(self, ids: torch.Tensor, layers: list, normed: torch.Tensor, *, logits: bool) -> States:
        n_dropped = int(self.prepend_bos)
        predicted, means = np.full((2, len(ids) - n_dropped), np.nan), (np.nan, np.nan)
        if self.is_whole:
            predicted[:, 1 - n_dropped :] = self._predictions(ids, normed)
            means = predicted[:, 1 - n_dropped :].mean(1)
        cloud = self._logit_cloud(ids, normed)[n_dropped:] if logits and self.is_whole else None
        return States(
            hidden=torch.stack(layers)[:, n_dropped:].float(),
            token_loss=predicted[0],
            loss=float(means[0]),
            token_entropy=predicted[1],
            entropy=float(means[1]),
            logits=cloud,
        )

    @torch.inference_mode()
    def last_token(self, token_ids: Sequence[Sequence[int]], *, bos: bool = False) -> torch.Tensor:
        """Hidden states of many short texts at the last token of each.

        What texts have in common at their beginning is read once, where the model can be made to do so
        and does it right. Else they are sorted by length and read in batches; a shorter one is filled up
        behind its last token, which cannot see what follows it.

        Parameters
        ----------
        token_ids
            Token ids of each text, without special tokens; at least one text.
        bos
            Whether BOS is fed before each text.

        Returns
        -------
        torch.Tensor
            float32, shape (n_layers + 1, n_texts, width), on the CPU.

        Raises
        ------
        InputError
            If a text has no tokens, or one is longer than the model can read.
        """
        start = [self.tokenizer.bos_token_id] if bos else []
        rows = [[*start, *ids] for ids in token_ids]
        self._check_lengths([len(row) - len(start) for row in rows], n_special=len(start))
        if self._shares_prefixes is None:
            self._shares_prefixes = self._check_prefixes(rows)
        batches = self._read_trees(rows) if self._shares_prefixes else self._read_batches(rows)
        return torch.stack(_by_text(batches), dim=1)

    def _read_batches(self, rows: list[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Texts by index, and their states at the last token, shape (text, layer, width)."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for batch in _batches(order, [len(row) for row in rows]):
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[i]) for i in batch], batch_first=True)
            layers, _ = self._states(ids.to(self.device), final_norm=True)
            place = torch.arange(len(batch)), torch.tensor([len(rows[i]) - 1 for i in batch])
            yield batch, torch.stack([layer[place] for layer in layers], dim=1)

    def _read_trees(self, rows: list[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """The same with shared beginnings."""
        trees = list(prefix_trees.trees(rows, n_nodes=TREE_TOKENS))
        for start in range(0, len(trees), TREES_AT_ONCE):
            batch = trees[start : start + TREES_AT_ONCE]
            size = max(len(tree.token_ids) for tree in batch)
            ids, depth = torch.zeros(2, len(batch), size, dtype=torch.int64)
            # what fills up a smaller tree sees itself, since a softmax needs something to see
            sees = torch.eye(size, dtype=torch.bool).repeat(len(batch), 1, 1)
            for row, tree in enumerate(batch):
                n = len(tree.token_ids)
                ids[row, :n], depth[row, :n], sees[row, :n, :n] = tree.token_ids, tree.depth, tree.sees
            mask = torch.zeros(sees.shape, dtype=self.model.dtype)
            mask = mask.masked_fill(~sees, torch.finfo(mask.dtype).min)
            layers, _ = self._states(
                ids.to(self.device),
                final_norm=True,
                position_ids=depth.to(self.device),
                attention_mask=mask[:, None].to(self.device),
            )
            for row, tree in enumerate(batch):
                yield tree.texts, torch.stack([layer[row, tree.last] for layer in layers], dim=1)

    def _check_prefixes(self, rows: list[list[int]]) -> bool:
        # Families differ in what they make of a mask and of positions that are given. Like the heads,
        # they are found by comparison: here of a few texts, the longest and one that begins like it.
        if "position_ids" not in inspect.signature(self.model.base_model.forward).parameters:
            return False
        longest = max(rows, key=len)
        few = [longest, longest[:-1] + [longest[0]], min(rows, key=len)]
        try:
            shared = _by_text(self._read_trees(few))
        except (TypeError, ValueError, RuntimeError):
            return False
        plain = _by_text(self._read_batches(few))
        # far from round-off, which some channels of large models magnify, and far from another context
        return all(float((a - b).norm() / b.norm()) < 1e-2 for a, b in zip(shared, plain, strict=True))

    def _check_lengths(self, lengths: list[int], *, n_special: int) -> None:
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if min(lengths) == 0:
            raise InputError(f"the tokenizer of {self.source.name!r} makes no token of a text: give other texts")
        if longest and max(lengths) + n_special > longest:
            raise InputError(
                f"a text has {max(lengths)} tokens, and model {self.source.name!r} reads {longest - n_special} at "
                "most: give shorter texts"
            )

    def _states(self, ids: torch.Tensor, *, final_norm: bool, **more) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Hidden states of indices 0 to `n_layers` of a batch, and what the head is applied to."""
        trunk = self.model.base_model
        if self.is_whole and final_norm:
            output = trunk(ids, output_hidden_states=True, use_cache=False, **more)
            layers = list(output.hidden_states)
        else:
            with _outputs(self._last_block()) as outputs:
                output = trunk(ids, output_hidden_states=True, use_cache=False, **more)
            # transformers replaces the last state by the normed one
            layers = [*output.hidden_states[:-1], outputs[0]]
            layers = layers[: self.n_layers + 1]
        if layers[-1].shape != layers[0].shape:
            raise InputError(
                f"model {self.source.name!r} gives its last hidden state another width "
                f"({layers[-1].shape[-1]}, not {layers[0].shape[-1]}): take the one before, with final_norm=False"
            )
        # the blocks of a model that is spread over GPUs leave their states on several
        last = output.last_hidden_state
        head = getattr(self.model.get_output_embeddings() if self.is_whole else None, "weight", last)
        return [layer.to(self.device) for layer in layers], last.to(head.device)

    def _last_block(self) -> torch.nn.Module:
        trunk = self.model.base_model
        n_blocks = self.n_layers if self.is_whole else max(self.n_layers, 1)
        return trunk.get_submodule(blocks.find(trunk, n_blocks))[-1]

    def _predictions(self, ids: torch.Tensor, last: torch.Tensor) -> np.ndarray:
        """Loss of every token but the first and entropy of its prediction, float64, shape (2, n - 1)."""
        whole = None if self._applies_head(ids) else self._transformers_logits(ids)
        parts = []
        for start in range(0, len(ids) - 1, HEAD_CHUNK):
            stop = min(start + HEAD_CHUNK, len(ids) - 1)
            logits = self._head(last[start:stop]) if whole is None else whole[start:stop]
            parts.append(_loss_and_entropy(logits.float(), ids[start + 1 : stop + 1].to(logits.device)))
        return torch.cat(parts, 1).cpu().numpy()

    def _logit_cloud(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        head = self.model.get_output_embeddings()
        is_linear = isinstance(head, torch.nn.Linear) and self._applies_head(ids)
        if is_linear and not self._cap:
            # |W a - W b|² = (a - b)ᵀ WᵀW (a - b); the bias is the same for all tokens
            if self._isometry is None:
                self._isometry = _root(_gram(head.weight.split(VOCABULARY_CHUNK)))
            points = last.double() @ self._isometry
        else:
            columns = self._logit_columns(ids, last, is_linear)
            points = _root(_gram((part - part.mean(0)).T for part in columns))
        return (points - points.mean(0)).float()

    def _logit_columns(self, ids: torch.Tensor, last: torch.Tensor, is_linear: bool) -> Iterator[torch.Tensor]:
        if not is_linear:
            yield from self._transformers_logits(ids).float().split(VOCABULARY_CHUNK, dim=1)
            return
        head = self.model.get_output_embeddings()
        for start in range(0, len(head.weight), VOCABULARY_CHUNK):
            some = slice(start, start + VOCABULARY_CHUNK)
            bias = None if head.bias is None else head.bias[some]
            yield self._capped(torch.nn.functional.linear(last, head.weight[some], bias)).float()

    @property
    def _cap(self) -> float | None:
        return getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        return self._capped(self.model.get_output_embeddings()(states))

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.tanh(logits / self._cap) * self._cap if self._cap else logits

    def _transformers_logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids[None], use_cache=False).logits[0]

    def _applies_head(self, ids: torch.Tensor) -> bool:
        """Whether the logits are what `_head` makes of the last states."""
        # A few families scale their logits after the head. They are found by
        # comparison, so that no list of families can be out of date.
        if self._head_is_known is None:
            short = ids[:8]
            states = self.model.base_model(short[None], use_cache=False).last_hidden_state[0]
            logits = self._transformers_logits(short).float()
            same = torch.allclose(self._head(states).float(), logits, rtol=1e-3, atol=1e-3)
            self._head_is_known = bool(same)
        return self._head_is_known


def _loss_and_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the targets and entropy, float64, shape (2, n); the logits are overwritten."""
    on_cpu = logits.device.type == "cpu"
    n_rows = max(1, _IN_CACHE // logits.shape[1]) if on_cpu else len(logits)
    parts = []
    for rows, chosen in zip(logits.split(n_rows), targets.split(n_rows), strict=True):
        # as transformers takes it: in float32, which at 262144 entries loses two units of the fifth digit
        loss = torch.nn.functional.cross_entropy(rows, chosen, reduction="none").double()
        rows -= rows.amax(1, keepdim=True)
        weights = rows.exp()
        total = weights.sum(1).double()
        # of probabilities p = w / total: -Σ p log p = log total - Σ w z / total
        mean = torch.linalg.vecdot(weights, rows).double() / total
        parts.append(torch.stack([loss, total.log() - mean]))
    return torch.cat(parts, 1)


def _gram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sum of the Gram matrices of the columns of each part, float64."""
    return sum(part.T @ part for part in (part.double() for part in parts))


def _root(gram: torch.Tensor) -> torch.Tensor:
    """Rows with the scalar products that a matrix holds."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()


def _batches(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Runs of `order` that have `BATCH_TOKENS` tokens at most when they are filled up to their longest."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _by_text(batches: Iterator[tuple[list[int], torch.Tensor]]) -> list[torch.Tensor]:
    """States of each text, float32 and on the CPU, in the order of the texts."""
    found = {i: one for texts, states in batches for i, one in zip(texts, states.float().cpu(), strict=True)}
    return [found[i] for i in range(len(found))]


@contextlib.contextmanager
def _outputs(block: torch.nn.Module):
    """What a block gives while the context lasts, as a list that grows with each pass."""
    found: list[torch.Tensor] = []

    def keep(module, arguments, output):
        found.append(output[0] if isinstance(output, tuple) else output)

    hook = block.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
