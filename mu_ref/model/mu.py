"""Mu's forward pass: the page to read first.

    tokens in ──▶ encode ──▶ remember ──▶ decode ──▶ logits ──▶ next token
                  32 layers   K, V once    12 layers   tied head

`encode` (`encoder.py`) reads the input once; `remember` computes the keys and values that every
decoder layer reads of it; `decode` (`decoder.py`) turns the tokens written so far into hidden
states, `logits` into scores of the next token. All of them call `ops` (`mu_ref/ops/__init__.py`)
and nothing else, so the same lines run in NumPy, in training, or on the simulated NPU.
Next: `decoder.decoder_block`, then `attention.attend`. Chapter: `docs/08_mu.md`.
"""

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model.attention import project_memory
from mu_ref.model.cache import Memory
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import encode
from mu_ref.ops import Ops, Value

__all__ = ["decoder_valid", "forward", "logits", "project", "remember", "source_valid", "start"]


def forward(
    ops: Ops,
    model: ModelConfig,
    source: np.ndarray | None,
    source_valid: np.ndarray | None,
    target: np.ndarray,
    target_valid: np.ndarray | None = None,
) -> Value:
    """Score the next token after each target token, all at once.

        >>> import numpy as np
        >>> import mu_ref
        >>> loaded = mu_ref.load_model()
        >>> source, target = np.array([[9, 20, 7, 2]]), np.array([[1, 30]])
        >>> mu_ref.forward(loaded.ops, loaded.model, source, source > 0, target).shape
        (1, 2, 1536)

    Args:
        ops: the executor.
        model: the configuration.
        source: [batch, n_src] int, encoder input; None for a decoder-only model.
        source_valid: [batch, n_src] bool, False at padding; None with source None.
        target: [batch, n_tgt] int, decoder input.
        target_valid: [batch, n_tgt] bool; by default `decoder_valid` decides.

    Returns:
        [batch, n_tgt, vocab_size] logits.
    """
    memory = None
    if source is not None and source_valid is not None:
        memory = remember(ops, model, source, source_valid)
    valid = decoder_valid(model, target) if target_valid is None else target_valid
    hidden = decode(ops, model, target, valid, memory)  # [batch, n_tgt, d_model]
    return logits(ops, model, hidden)


def remember(
    ops: Ops,
    model: ModelConfig,
    source: np.ndarray,
    valid: np.ndarray,
    read: np.ndarray | None = None,
) -> Memory:
    """Encode the input, and compute what each decoder layer will read of it.

    Args:
        ops: the executor.
        model: the configuration; has both stacks.
        source: [batch, n_src] int.
        valid: [batch, n_src] bool, False at padding.
        read: [batch, n_src] bool, what the decoder reads; the valid ones by default.

    Returns:
        The memory: encoder output, K and V of every decoder layer, mask.
    """
    hidden = encode(ops, model, source, valid)  # [batch, n_src, d_model]
    return project(ops, model, hidden, valid if read is None else read)


def project(ops: Ops, model: ModelConfig, hidden: Value, read: np.ndarray) -> Memory:
    """Compute what each decoder layer will read of an input that is encoded.

    Args:
        ops: the executor.
        model: the configuration; has both stacks.
        hidden: [batch, n_src, d_model of the encoder].
        read: [batch, n_src] bool, what the decoder reads.

    Returns:
        The memory.
    """
    mask = read[:, None, None, :]  # [batch, 1, 1, n_src]: every head and query sees the same
    stack = model.stacks["decoder"]
    sites = [f"decoder.{layer}.cross_attention" for layer in range(stack.n_layers)]
    return Memory(hidden, [project_memory(ops, stack, hidden, mask, site) for site in sites])


def logits(ops: Ops, model: ModelConfig, hidden: Value) -> Value:
    """Project hidden states onto the vocabulary: [..., d_model] -> [..., vocab_size].

    Args:
        ops: the executor.
        model: uses head_site and final_softcap.
        hidden: [..., d_model].

    Returns:
        [..., vocab_size].
    """
    scores = ops.linear(hidden, "head", model.head_site)
    if model.final_softcap is None:
        return scores
    return ops.softcap(scores, model.final_softcap, "head.softcap")


def source_valid(model: ModelConfig, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say what is read of an encoder input that comes without a mask.

    Args:
        model: uses encoder_pad_id (or pad_id) and mask_cross_pads.
        source: [batch, n_src] int.

    Returns:
        Two masks [batch, n_src] bool, True where a token is read: by the encoder, by the decoder.

    Raises:
        InputError: the encoder has no pad token, so that a mask is needed.
    """
    if model.encoder_pad_id == -1:
        raise InputError(
            f"{model.name} must be given encoder_attention_mask, since its encoder has no pad "
            "token (pad_token_id is null); got none"
        )
    valid = source != model.source_pad
    return valid, valid if model.mask_cross_pads else np.ones(source.shape, bool)


def start(model: ModelConfig, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoder's first token, [batch, 1], and whether others may read it, the same."""
    tokens = np.full((batch, 1), model.bos_id)
    if model.unseeing == "zero":  # a text whose start nobody reads would begin with nothing
        return tokens, np.ones(tokens.shape, bool)
    return tokens, decoder_valid(model, tokens)


def decoder_valid(model: ModelConfig, tokens: np.ndarray) -> np.ndarray:
    """Mark the decoder tokens that others may read.

    Args:
        model: uses mask_decoder_pads and pad_id.
        tokens: [batch, n_tok] int.

    Returns:
        [batch, n_tok] bool: all True, or False at pad_id where the model masks its pads.
    """
    return tokens != model.pad_id if model.mask_decoder_pads else np.ones(tokens.shape, bool)
