"""Our model and our step in plain PyTorch, for `tests.benchmarks.training_speed`.

The same shapes and formulas: biases, norms on both sides of a sub-layer, rotary positions, grouped
heads, cross-entropy, clipping, AdamW. Eager, float32, and of what PyTorch offers the faster
part: `scaled_dot_product_attention`, `rms_norm`, the fused AdamW. Weights are ours by name.
"""

import numpy as np
import torch
from torch.nn import functional as F

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops.rotation import Rotation
from mu_ref.training.datasets import Batch
from mu_ref.training.optimizers import AdamW
from mu_ref.training.trainer import TrainConfig
from mu_ref.weights import Weights

__all__ = ["TorchTrainer"]

ACTIVATIONS = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
}


class _Stack(torch.nn.Module):
    """What both stacks do with the weights of a site."""

    def __init__(self, stack: StackConfig, weights: dict[str, torch.nn.Parameter]) -> None:
        super().__init__()
        self.stack, self.named = stack, weights

    def linear(self, x: torch.Tensor, site: str) -> torch.Tensor:
        return F.linear(x, self.named[f"{site}.weight"], self.named.get(f"{site}.bias"))

    def norm(self, x: torch.Tensor, site: str) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.named[f"{site}.weight"], eps=self.stack.norm_eps)

    def heads(self, x: torch.Tensor, site: str, n_heads: int) -> torch.Tensor:
        y = self.linear(x, site)
        return y.view(*y.shape[:2], n_heads, -1).transpose(1, 2)

    def attention(
        self,
        x: torch.Tensor,
        read: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor] | None,
        mask: torch.Tensor,
        site: str,
    ) -> torch.Tensor:
        stack = self.stack
        q = self.heads(x, f"{site}.q", stack.n_heads)
        k = self.heads(read, f"{site}.k", stack.n_kv_heads)
        v = self.heads(read, f"{site}.v", stack.n_kv_heads)
        if turn is not None:
            q, k = _turned(q, *turn), _turned(k, *turn)
        if stack.n_kv_heads < stack.n_heads:
            k, v = k[:, list(stack.kv_head_of)], v[:, list(stack.kv_head_of)]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=stack.attention_scale)
        return self.linear(mixed.transpose(1, 2).flatten(2), f"{site}.o")

    def mlp(self, x: torch.Tensor, site: str) -> torch.Tensor:
        act = ACTIVATIONS[self.stack.activation]
        up = self.linear(x, f"{site}.up")
        inner = act(self.linear(x, f"{site}.gate")) * up if self.stack.gated else act(up)
        return self.linear(inner, f"{site}.down")

    def around(self, x: torch.Tensor, site: str, sublayer) -> torch.Tensor:
        update = sublayer(self.norm(x, f"{site}.pre_norm"))
        if self.stack.norm_placement == "dual":
            update = self.norm(update, f"{site}.post_norm")
        return x + update


class TorchTrainer:
    """A model with our initial weights, and a step as our trainer takes it.

    Args:
        model: RMS norms, no soft-caps, no windows.
        config: of the run.
        weights: copied.
    """

    def __init__(self, model: ModelConfig, config: TrainConfig, weights: Weights) -> None:
        assert {stack.norm_kind for stack in model.stacks.values()} == {"rms"}
        assert model.dropout == 0
        self.model, self.config = model, config
        self.named = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in weights.items()}
        self.stacks = {n: _Stack(stack, self.named) for n, stack in model.stacks.items()}
        self.optimizer = self._adamw()

    def _adamw(self) -> torch.optim.Optimizer:
        ours = AdamW(weight_decay=self.config.adam_weight_decay)
        both = (
            [p for p in self.named.values() if p.ndim == 2],
            [p for p in self.named.values() if p.ndim != 2],
        )
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in zip(both, (ours.weight_decay, 0.0), strict=True)
        ]
        betas = (ours.beta1, ours.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=ours.eps, fused=True)

    def scores(self, batch: Batch) -> torch.Tensor:
        """Return logits [batch, n_tgt, vocab_size]."""
        encoder, decoder = self.stacks["encoder"], self.stacks["decoder"]
        valid = torch.from_numpy(batch.source_valid)[:, None, None, :]
        turn = _turn(encoder.stack, batch.source_valid)
        x = self._embed(batch.source, "encoder")
        for layer in range(encoder.stack.n_layers):
            own, inner = f"encoder.{layer}.self_attention", f"encoder.{layer}.mlp"
            x = encoder.around(x, own, lambda h, s=own: encoder.attention(h, h, turn, valid, s))
            x = encoder.around(x, inner, lambda h, s=inner: encoder.mlp(h, s))
        memory = encoder.norm(x, "encoder.final_norm")
        turn = _turn(decoder.stack, batch.counted)
        n = batch.inputs.shape[1]
        seen = (
            torch.ones(n, n, dtype=torch.bool).tril()
            & torch.from_numpy(batch.counted)[:, None, None, :]
        )
        x = self._embed(batch.inputs, "decoder")
        for layer in range(decoder.stack.n_layers):
            own, inner = f"decoder.{layer}.self_attention", f"decoder.{layer}.mlp"
            cross = f"decoder.{layer}.cross_attention"
            x = decoder.around(x, own, lambda h, s=own: decoder.attention(h, h, turn, seen, s))
            x = decoder.around(
                x, cross, lambda h, s=cross: decoder.attention(h, memory, None, valid, s)
            )
            x = decoder.around(x, inner, lambda h, s=inner: decoder.mlp(h, s))
        x = decoder.norm(x, "decoder.final_norm")
        return F.linear(x, self.named[f"{self.model.head_site}.weight"])

    def _embed(self, tokens: np.ndarray, site: str) -> torch.Tensor:
        table = self.named[f"{self.model.embedding_site(site)}.weight"]
        return F.embedding(torch.from_numpy(tokens), table) * self.model.stacks[site].embed_scale

    def train_step(self, batch: Batch, rate: float) -> float:
        """Take one step; return the loss before it."""
        scores = self.scores(batch)[torch.from_numpy(batch.counted)]
        labels = torch.from_numpy(batch.labels[batch.counted])
        loss = F.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.named.values(), self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.config.adam_rate_share
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def _turn(stack: StackConfig, valid: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    theta = rope_theta(stack, rope_lengths(stack, valid))
    rotation = Rotation(positions_of(stack, valid), theta, stack.d_head)
    tables = (np.float32(table)[:, None] for table in (rotation.cos, rotation.sin))
    cos, sin = (torch.from_numpy(table) for table in tables)
    return cos, sin


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
