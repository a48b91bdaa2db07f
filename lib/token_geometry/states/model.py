"""A language model: from token ids to hidden states, loss and logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from token_geometry.base import InputError
from token_geometry.models import blocks, loading
from token_geometry.models import tuned_lens as lenses
from token_geometry.models.devices import choose_device
from token_geometry.models.source import ModelSource
from token_geometry.states import short_texts
from token_geometry.states.heads import Head
from token_geometry.states.stream import Stream


@dataclass(frozen=True)
class States:
    """What one forward pass leaves of one prompt, without BOS.

    `hidden` are the hidden states by their index in transformers' `hidden_states`, float32, shape (n_layers +
    1, n_tokens, width). 0: embeddings; l: the residual stream after l blocks, before any final norm; L, where
    the model is whole: after the final norm, or before it if that was asked for. The book's chapter on methods
    translates other ways of counting (tbl-index).

    `token_loss` is the cross-entropy of each token given those before it, nats, shape (n_tokens,), NaN for a
    first token that nothing precedes, and for all of them where the model was loaded in part. `token_entropy`
    is the entropy of the distribution that predicted each token, likewise. `loss`, as transformers takes it,
    and `entropy` are their means over the tokens that were predicted.

    If the logits were asked for, `lens` holds loss and entropy of the latent prediction of each layer by
    `Head.lens`, and `logits` are points that are as far from one another as the logits of the tokens, which are as
    wide as the vocabulary, float32, shape (n_tokens, n); n is the width where the head is linear, else n_tokens.
    """

    hidden: torch.Tensor
    token_loss: np.ndarray
    loss: float
    token_entropy: np.ndarray
    entropy: float
    lens: np.ndarray | None = None
    logits: torch.Tensor | None = None


class LanguageModel:
    """A loaded model, ready to turn token ids into hidden states.

    `source` is of `sources.resolve`, `dtype` the type of the weights and of the forward pass, `device` a torch
    device or `auto`; `devices`, of `devices.assign`, are those that the model is spread over, in its place.
    `n_layers` is the index of the last hidden state that is wanted: so many blocks are built and read, and no
    more of the files than they need. Such a model has no head, and so no loss. None, or the number of its
    blocks: the whole model. `tuned_lens` is directory or hub id of a tuned lens for the latent predictions
    (empty: the logit lens), `loaded` a whole model and its tokenizer that are in memory already."""

    def __init__(
        self, source: ModelSource, *, dtype: str = "float32", device: str = "auto", n_layers: int | None = None,
        devices: Sequence[str] = (), tuned_lens: str = "", loaded: tuple | None = None,
    ):  # fmt: skip
        self.devices = [choose_device(devices[0] if devices else device), *devices[1:]]
        """Devices of the weights; states are gathered on the first."""
        self.source, self.device = source, self.devices[0]
        if loaded is None:
            if loading.is_whole(source, loading.load_config(source), n_layers):
                n_layers = None
            tokenizer, place = loading.load_tokenizer(source), self.devices
            model = loading.load_model(source, dtype=dtype, device=place[0], n_layers=n_layers, devices=place)
            loaded = model, tokenizer
        self.model, self.tokenizer = model, tokenizer = loaded
        self.stream = Stream(model, name=source.name, n_layers=n_layers)
        self.n_layers, self.is_whole = self.stream.n_layers, self.stream.is_whole
        tuned = lenses.read(tuned_lens, source, model.config) if tuned_lens else ()
        self.head = Head(model, self.stream, tuned) if self.is_whole else None
        trial = {"model": model, "tokenizer": tokenizer} if self.is_whole else {}
        self.prepend_bos = loading.needs_bos(source, model.config.model_type, **trial)
        self._shares_prefixes: bool | None = None
        self._longest = 0
        if self.prepend_bos and tokenizer.bos_token_id is None:
            raise InputError(
                f"model {source.name!r} needs a BOS token and its tokenizer has none: "
                "set prepend_bos: false for it in data/models.yml"
            )

    def forward(self, token_ids: np.ndarray, *, final_norm: bool = True, logits: bool = False) -> States:
        """Hidden states, loss and entropy of one prompt, of shape (n_tokens,); see `forward_batch`."""
        return self.forward_batch(np.asarray(token_ids)[None], final_norm=final_norm, logits=logits)[0]

    @torch.inference_mode()
    def forward_batch(
        self, token_ids: np.ndarray, *, final_norm: bool = True, logits: bool = False
    ) -> list[States]:
        """Hidden states, loss and entropy of prompts of one length, in one pass.

        `token_ids` have shape (n_prompts, n_tokens), without special tokens; BOS is prepended here where the
        model needs it, and its position dropped from what is returned. The token after BOS counts in the loss.
        With `final_norm` the last state of a whole model, of index L, is the one after the final norm, as
        transformers has it; else it is the residual stream that the norm is applied to, as are all states below
        L. `logits` asks for the cloud of the logits; a model loaded in part has none.

        Raises `InputError` if a token lies outside the model's vocabulary, there are more than the model can
        read, or the model is no causal language model with one residual stream."""
        loading.check_length(self.source, self.model.config, np.shape(token_ids)[1], bos=self.prepend_bos)
        ids = torch.from_numpy(np.asarray(token_ids, dtype=np.int64)).to(self.device)
        if self.prepend_bos:
            ids = torch.cat([ids.new_full((len(ids), 1), self.tokenizer.bos_token_id), ids], dim=1)
        layers, last = self.stream.read(ids, final_norm=final_norm)
        return [
            self._states_of_one(line, [layer[row] for layer in layers], last[row], logits=logits)
            for row, line in enumerate(ids)
        ]

    def _states_of_one(self, ids: torch.Tensor, layers: list, last: torch.Tensor, *, logits: bool) -> States:
        n_dropped = int(self.prepend_bos)
        predicted, means = np.full((2, len(ids) - n_dropped), np.nan), (np.nan, np.nan)
        cloud = lens = None
        if self.head is not None:
            predicted[:, 1 - n_dropped :] = self.head.predictions(ids, last)
            means = predicted[:, 1 - n_dropped :].mean(1)
            if logits:
                cloud, lens = self.head.cloud(ids, last)[n_dropped:], self.head.lens(ids, layers, last)
        hidden = torch.stack(layers)[:, n_dropped:].float()
        return States(hidden, predicted[0], float(means[0]), predicted[1], float(means[1]), lens, cloud)

    @torch.inference_mode()
    def read_texts(
        self, token_ids: Sequence[Sequence[int]], *, bos: bool = False, losses: bool = True
    ) -> tuple[torch.Tensor, list[np.ndarray]]:
        """Hidden states of many short texts, one or more, at the last token of each, and the losses of all tokens.

        The states are float32 and on the CPU, shape (n_layers + 1, n_texts, width), the losses of the tokens of
        each text in nats, NaN where nothing is before a token; they need a whole model. What texts have in common
        at their beginning is read once, where the model can be made to do so and does it right. Token ids are
        without special tokens; `bos` says whether BOS is fed before each text.

        Raises `InputError` if a text has no tokens, or one is longer than the model can read, or the model is
        no causal language model with one residual stream."""
        start = [self.tokenizer.bos_token_id] if bos else []
        rows = [[*start, *ids] for ids in token_ids]
        longest, context = max(map(len, rows)), blocks.context(self.model.config)
        if min(map(len, rows)) == len(start):
            raise InputError(f"the tokenizer of {self.source.name!r} makes no token of a text: give other texts")
        if context and longest > context:
            raise InputError(
                f"a text has {longest - len(start)} tokens, and model {self.source.name!r} reads "
                f"{context - len(start)} at most: give shorter texts"
            )
        shared, ids = self.shares_prefixes(rows), [torch.tensor(row, device=self.device) for row in rows]
        head = self.head if losses and self.head and self.head.is_all(ids[0]) else None
        states, found = short_texts.read(self.stream, rows, shared=shared, head=head)
        if losses and self.head and not head:
            found = [np.append(np.nan, self.head.predictions(row, row)[0]) for row in ids]
        return states, [one[len(start) :] for one in found]

    def shares_prefixes(self, rows: list[list[int]]) -> bool:
        """Whether common beginnings of texts can be read once; `rows` are their tokens, BOS included."""
        # some families see a window only, which a longer text may leave
        longest = max(map(len, rows))
        if self._shares_prefixes is None or (self._shares_prefixes and longest > self._longest):
            self._shares_prefixes = short_texts.can_share(self.stream, rows)
        self._longest = max(longest, self._longest)
        return self._shares_prefixes
