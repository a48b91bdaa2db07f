"""Hidden states of prompts: the one place that touches transformers' internals."""

from dataclasses import dataclass

import numpy as np
import torch

from . import models
from .errors import InputError

HEAD_CHUNK = 256
"""Positions whose logits are held at a time; a vocabulary of 262k takes 1 MB a position."""


@dataclass(frozen=True)
class States:
    """What one forward pass leaves of one prompt."""

    hidden: torch.Tensor
    """Hidden states in transformers' order (0: embeddings, L: after the final norm), float32,
    shape (L + 1, n_tokens, width), without the BOS position."""

    token_loss: np.ndarray
    """Cross-entropy of each token given those before it, nats, shape (n_tokens,); NaN for a first
    token that nothing precedes."""

    loss: float
    """Mean of `token_loss` over the tokens that were predicted, as transformers takes it."""


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
    """

    def __init__(self, source: models.ModelSource, *, dtype: str = "float32", device: str = "auto"):
        self.source = source
        self.device = models.choose_device(device)
        self.tokenizer = models.load_tokenizer(source)
        self.model = models.load_model(source, dtype=dtype, device=self.device)
        self.prepend_bos = models.needs_bos(source, self.model.config.model_type)
        self._head_is_linear: bool | None = None
        if self.prepend_bos and self.tokenizer.bos_token_id is None:
            raise InputError(
                f"model {source.name!r} needs a BOS token and its tokenizer has none: "
                "set prepend_bos: false for it in data/models.yml"
            )

    @property
    def n_layers(self) -> int:
        """Number of blocks L; there are L + 1 hidden states."""
        return self.model.config.get_text_config().num_hidden_layers

    @torch.inference_mode()
    def forward(self, token_ids: np.ndarray) -> States:
        """Hidden states and loss of one prompt.

        Parameters
        ----------
        token_ids
            Shape (n_tokens,), without special tokens; BOS is prepended here
            where the model needs it, and its position dropped from what is
            returned. The token after BOS counts in the loss.

        Raises
        ------
        InputError
            If a token lies outside the model's vocabulary.
        """
        ids = torch.from_numpy(np.asarray(token_ids, dtype=np.int64)).to(self.device)
        n_vocabulary = self.model.get_input_embeddings().num_embeddings
        if int(ids.max()) >= n_vocabulary:
            raise InputError(
                f"token id {int(ids.max())} is outside the vocabulary of {self.source.name!r} "
                f"({n_vocabulary} entries): its tokenizer belongs to another model"
            )
        if self.prepend_bos:
            ids = torch.cat([ids.new_tensor([self.tokenizer.bos_token_id]), ids])
        output = self.model.base_model(ids[None], output_hidden_states=True, use_cache=False)
        hidden = torch.stack([layer[0] for layer in output.hidden_states])
        predicted = self._token_loss(ids, hidden[-1])
        token_loss = np.full(len(token_ids), np.nan)
        token_loss[len(token_ids) - len(predicted) :] = predicted
        kept = hidden[:, 1:] if self.prepend_bos else hidden
        return States(hidden=kept.float(), token_loss=token_loss, loss=float(predicted.mean()))

    def _token_loss(self, ids: torch.Tensor, last: torch.Tensor) -> np.ndarray:
        if self._head_is_linear is None:
            self._head_is_linear = self._check_head(ids)
        if not self._head_is_linear:
            logits = self.model(ids[None], use_cache=False).logits[0]
            losses = torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:], reduction="none")
            return losses.double().cpu().numpy()
        losses = []
        for start in range(0, len(ids) - 1, HEAD_CHUNK):
            stop = min(start + HEAD_CHUNK, len(ids) - 1)
            logits = self._head(last[start:stop]).float()
            targets = ids[start + 1 : stop + 1]
            losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        return torch.cat(losses).double().cpu().numpy()

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        logits = self.model.get_output_embeddings()(states)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def _check_head(self, ids: torch.Tensor) -> bool:
        # A few families scale their logits after the head. They are found by
        # comparison, so that no list of families can be out of date.
        short = ids[None, :8]
        states = self.model.base_model(short, use_cache=False).last_hidden_state[0]
        logits = self.model(short, use_cache=False).logits[0].float()
        return bool(torch.allclose(self._head(states).float(), logits, rtol=1e-3, atol=1e-3))
