"""Everything that decides a model's result, in two frozen dataclasses.

`StackConfig` describes one stack of layers (an encoder or a decoder), `ModelConfig` puts one or two
stacks, the embeddings and the head together. There are no defaults: `presets.py` gives complete
sets, `readers/` makes them from other projects' `config.json`. A configuration travels as JSON in
the metadata of its weight file. Chapter: `docs/01_mu.md`.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from mu_ref.errors import ConfigError, check_choice

__all__ = ["INT4_GROUP", "ModelConfig", "StackConfig"]

INT4_GROUP = 128  # inputs whose 4-bit weights share a scale

NORM_KINDS = ("rms", "rms_plus_one", "layer")
NORM_PLACEMENTS = ("pre", "dual")
ACTIVATIONS = ("gelu_tanh", "gelu", "silu", "relu")
KV_HEAD_MAPS = ("blocked", "cyclic")
ROPE_ORIGINS = ("start", "centre")
ROPE_LENGTHS = ("row", "padded")


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """One stack of transformer layers; see the glossary in `docs/glossary.md` for the names.

    Raises:
        ConfigError: two fields contradict each other, or a value is not supported.
    """

    n_layers: int
    d_model: int  # width of the residual stream
    d_ff: int  # inner width of the MLP
    n_heads: int  # query heads
    n_kv_heads: int  # key/value heads
    d_head: int  # width of one head; n_heads * d_head may differ from d_model
    kv_head_map: Literal["blocked", "cyclic"]  # head h reads h // group, or h % n_kv_heads
    attention_scale: float  # multiplies q·k
    attention_softcap: float | None  # c in c * tanh(score / c)
    attention_bias: bool  # biases on q, k, v, o
    mlp_bias: bool  # biases on up, gate, down
    window: int | None  # tokens a windowed layer looks back (decoder) or to each side (encoder)
    windowed_layers: tuple[bool, ...]  # per layer: does the window apply?
    norm_kind: Literal["rms", "rms_plus_one", "layer"]
    norm_placement: Literal["pre", "dual"]  # x + F(Pre(x)), or x + Post(F(Pre(x)))
    norm_eps: float
    embed_norm: bool  # a norm on the embeddings, before the first layer
    embed_scale: float  # multiplies the embeddings
    activation: Literal["gelu_tanh", "gelu", "silu", "relu"]
    gated: bool  # MLP is down(act(gate(x)) * up(x)) instead of down(act(up(x)))
    rope_theta: float
    rope_origin: Literal["start", "centre"]  # position 0 is the first or the middle token
    rope_ntk_factor: float  # > 1: theta grows once the length passes rope_base_len
    rope_base_len: int  # tokens seen in pre-training, for NTK
    rope_length: Literal["row", "padded"]  # the length that NTK and `centre` see in a batch

    def __post_init__(self) -> None:
        """Check the relations between fields."""
        for name in ("n_layers", "d_model", "d_ff", "n_heads", "n_kv_heads", "d_head"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads must be a multiple of n_kv_heads={self.n_kv_heads}, got {self.n_heads}"
            )
        if self.d_head % 2:
            raise ConfigError(f"d_head must be even so that RoPE can pair it, got {self.d_head}")
        if self.rope_ntk_factor > 1 and self.d_head < 4:
            raise ConfigError(f"d_head must be at least 4 with an NTK factor, got {self.d_head}")
        for name in ("rope_theta", "rope_base_len", "attention_softcap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive, got {value}")
        if not self.norm_eps >= 0:
            raise ConfigError(f"norm_eps must be at least 0, got {self.norm_eps}")
        if len(self.windowed_layers) != self.n_layers:
            raise ConfigError(
                f"windowed_layers must name each of the {self.n_layers} layers, "
                f"got {len(self.windowed_layers)} entries"
            )
        if any(self.windowed_layers) and (self.window is None or self.window < 1):
            raise ConfigError(
                f"window must be at least 1 where a layer is windowed, got {self.window}"
            )
        check_choice("kv_head_map", self.kv_head_map, KV_HEAD_MAPS, ConfigError)
        check_choice("norm_kind", self.norm_kind, NORM_KINDS, ConfigError)
        check_choice("norm_placement", self.norm_placement, NORM_PLACEMENTS, ConfigError)
        check_choice("activation", self.activation, ACTIVATIONS, ConfigError)
        check_choice("rope_origin", self.rope_origin, ROPE_ORIGINS, ConfigError)
        check_choice("rope_length", self.rope_length, ROPE_LENGTHS, ConfigError)

    @property
    def d_attn(self) -> int:
        """Width of all query heads together."""
        return self.n_heads * self.d_head

    @property
    def d_kv(self) -> int:
        """Width of all key (or value) heads together."""
        return self.n_kv_heads * self.d_head

    @property
    def kv_head_of(self) -> tuple[int, ...]:
        """For each query head, the key/value head it reads."""
        group = self.n_heads // self.n_kv_heads
        if self.kv_head_map == "blocked":
            return tuple(h // group for h in range(self.n_heads))
        return tuple(h % self.n_kv_heads for h in range(self.n_heads))

    def layer_window(self, layer: int) -> int | None:
        """Window of one layer, or None where it sees everything."""
        return self.window if self.windowed_layers[layer] else None

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The windows that its layers have, each once: they need a mask each."""
        return tuple(dict.fromkeys(map(self.layer_window, range(self.n_layers))))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A whole model: encoder-decoder (both stacks), decoder-only or encoder-only (one of them).

        >>> from dataclasses import replace
        >>> import mu_ref
        >>> model = replace(mu_ref.preset("mu-nano"), max_len=512)
        >>> mu_ref.ModelConfig.from_json(model.to_json()) == model
        True

    Raises:
        ConfigError: two fields contradict each other.
    """

    name: str
    encoder: StackConfig | None
    decoder: StackConfig | None
    vocab_size: int  # rows of the decoder's embedding and of the head (encoder's, if alone)
    encoder_vocab_size: int  # rows of the encoder's embedding
    shared_embedding: bool  # encoder and decoder read one table
    tied_head: bool  # the head is the decoder's embedding
    head_bias: bool
    final_softcap: float | None  # c in c * tanh(logit / c)
    max_len: int  # longest sequence the model was made for (tokens); guidance, not a limit of code
    pad_id: int
    bos_id: int  # the decoder's first token
    eos_id: int
    mask_decoder_pads: bool  # do pad tokens in the decoder's input hide themselves from others?
    dropout: float  # rate, in training only

    def __post_init__(self) -> None:
        """Check the relations between fields."""
        if self.encoder is None and self.decoder is None:
            raise ConfigError("a model must have an encoder or a decoder, got neither")
        if self.vocab_size < 1 or self.encoder_vocab_size < 1:
            raise ConfigError(f"vocab_size must be at least 1, got {self.vocab_size}")
        both = self.encoder is not None and self.decoder is not None
        if self.shared_embedding:
            if self.encoder_vocab_size != self.vocab_size:
                raise ConfigError(
                    f"encoder_vocab_size must equal vocab_size={self.vocab_size} with a shared "
                    f"embedding, got {self.encoder_vocab_size}"
                )
            if both and self.encoder.d_model != self.decoder.d_model:  # type: ignore[union-attr]
                raise ConfigError("stacks that share an embedding must have the same d_model")
        if self.decoder is not None and self.decoder.rope_origin != "start":
            raise ConfigError(
                f"rope_origin of a decoder must be 'start', got {self.decoder.rope_origin!r}; "
                "a centre would move with every token that is written"
            )
        if self.final_softcap is not None and not self.final_softcap > 0:
            raise ConfigError(f"final_softcap must be positive, got {self.final_softcap}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The stacks that exist, by name, encoder first."""
        named = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: stack for name, stack in named.items() if stack is not None}

    def embedding_site(self, stack: str) -> str:
        """Site of the embedding table that a stack reads."""
        return "embedding" if self.shared_embedding else f"{stack}.embedding"

    @property
    def head_site(self) -> str:
        """Site whose weight the vocabulary projection uses."""
        return self.embedding_site("decoder") if self.tied_head else "head"

    def to_json(self) -> str:
        """Return the configuration as a JSON text that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a configuration written by `to_json`.

        Args:
            text: JSON.

        Returns:
            The configuration.

        Raises:
            ConfigError: not JSON, or a field is missing, unknown or inconsistent.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a configuration must be JSON, got {text[:40]!r}") from error
        try:
            for name in ("encoder", "decoder"):
                if isinstance(data, dict) and data.get(name) is not None:
                    stack = _checked_fields(StackConfig, data[name], name)
                    stack["windowed_layers"] = tuple(stack["windowed_layers"])
                    data[name] = StackConfig(**stack)
            return cls(**_checked_fields(cls, data, "configuration"))
        except TypeError as error:
            raise ConfigError(
                f"a configuration must hold values of the right kind; one is not ({error})"
            ) from error


def _checked_fields(kind: type, data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{what} must be a JSON object, got {type(data).__name__}")
    names = {field.name for field in fields(kind)}
    if names != set(data):
        missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
        raise ConfigError(f"{what} must have exactly its fields; missing {missing}, got {unknown}")
    return data
