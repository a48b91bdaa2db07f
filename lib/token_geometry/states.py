"""Hidden states of prompts: the one place that touches transformers' internals."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch

from . import blocks, models
from .errors import InputError

HEAD_CHUNK = 256
"""Positions whose logits are held at a time; a vocabulary of 262k takes 1 MB a position."""


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
    """

    def __init__(
        self,
        source: models.ModelSource,
        *,
        dtype: str = "float32",
        device: str = "auto",
        n_layers: int | None = None,
    ):
        self.source = source
        self.device = models.choose_device(device)
        config = models.load_config(source)
        self.is_whole = models.is_whole(source, config, n_layers)
        self.n_layers: int = config.get_text_config().num_hidden_layers if n_layers is None else n_layers
        """Index of the last hidden state: the number of blocks L, or fewer if so many were asked for."""
        self.tokenizer = models.load_tokenizer(source)
        self.model = models.load_model(source, dtype=dtype, device=self.device, n_layers=n_layers)
        self.prepend_bos = models.needs_bos(source, self.model.config.model_type)
        self._head_is_linear: bool | None = None
        if self.prepend_bos and self.tokenizer.bos_token_id is None:
            raise InputError(
                f"model {source.name!r} needs a BOS token and its tokenizer has none: "
                "set prepend_bos: false for it in data/models.yml"
            )

    @torch.inference_mode()
    def forward(self, token_ids: np.ndarray, *, final_norm: bool = True) -> States:
        """Hidden states and loss of one prompt.

        Parameters
        ----------
        token_ids
            Shape (n_tokens,), without special tokens; BOS is prepended here
            where the model needs it, and its position dropped from what is
            returned. The token after BOS counts in the loss.
        final_norm
            Whether the last state of a whole model, of index L, is the one after the final norm, as
            transformers has it; else it is the residual stream that the norm is applied to. The
            states below L are before the norm in any case, in a model loaded in part all of them.

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
        layers, normed = self._states(ids, final_norm=final_norm)
        token_loss = np.full(len(token_ids), np.nan)
        loss = float("nan")
        if self.is_whole:
            predicted = self._token_loss(ids, normed)
            token_loss[len(token_ids) - len(predicted) :] = predicted
            loss = float(predicted.mean())
        hidden = torch.stack(layers)
        kept = hidden[:, 1:] if self.prepend_bos else hidden
        return States(hidden=kept.float(), token_loss=token_loss, loss=loss)

    def _states(self, ids: torch.Tensor, *, final_norm: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Hidden states of indices 0 to `n_layers`, and what the head is applied to."""
        trunk = self.model.base_model
        if self.is_whole and final_norm:
            output = trunk(ids[None], output_hidden_states=True, use_cache=False)
            layers = [layer[0] for layer in output.hidden_states]
        else:
            with _outputs(self._last_block()) as outputs:
                output = trunk(ids[None], output_hidden_states=True, use_cache=False)
            # transformers replaces the last state by the normed one
            layers = [layer[0] for layer in output.hidden_states[:-1]] + [outputs[0][0]]
            layers = layers[: self.n_layers + 1]
        if layers[-1].shape != layers[0].shape:
            raise InputError(
                f"model {self.source.name!r} gives its last hidden state another width "
                f"({layers[-1].shape[-1]}, not {layers[0].shape[-1]}): take the one before, with final_norm=False"
            )
        return layers, output.last_hidden_state[0]

    def _last_block(self) -> torch.nn.Module:
        trunk = self.model.base_model
        n_blocks = self.n_layers if self.is_whole else max(self.n_layers, 1)
        return trunk.get_submodule(blocks.find(trunk, n_blocks))[-1]

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
