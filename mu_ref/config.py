"""Everything that decides a model's result, in two frozen dataclasses.

`StackConfig` describes one stack of layers (an encoder or a decoder), `ModelConfig` puts one or two
stacks, the embeddings and the head together. `presets.py` gives complete sets, `readers/` makes
them from other projects' `config.json`. The last fields of each have defaults: only checkpoints of
others need them (`docs/checkpoints.md`). A configuration travels as JSON in the metadata of its
weight file. Chapter: `docs/08_mu.md`.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, Self

from mu_ref.border.overrides import kind_of_field
from mu_ref.border.ranges import (
    MODEL_RANGES,
    STACK_RANGES,
    WEIGHTS,
    check_fields,
    check_kinds,
    token_range,
)  # fmt: skip
from mu_ref.border.reading import exact_fields, parse_json
from mu_ref.errors import ConfigError, InputError, MuRefError, check_choice, located

__all__ = ["INT4_GROUP", "ModelConfig", "StackConfig", "model_fields", "with_model_fields"]

NOT_SET = ("name", "encoder", "decoder", "windowed_layers")  # by `with_model_fields`
INT4_GROUP = 128  # inputs whose 4-bit weights share a scale


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
    rope_factor: float = 1.0  # angles are those of position / rope_factor
    window_inclusive: bool = True  # in an encoder: is a token at the distance `window` seen?

    def __post_init__(self) -> None:
        """Check each field, then the relations between fields."""
        check_kinds(self, ConfigError)
        check_fields(self, STACK_RANGES, ConfigError)
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads must be a multiple of n_kv_heads={self.n_kv_heads}, got {self.n_heads}"
            )
        if self.d_head % 2:
            raise ConfigError(f"d_head must be even so that RoPE can pair it, got {self.d_head}")
        if self.rope_ntk_factor > 1 and self.d_head < 4:
            raise ConfigError(f"d_head must be at least 4 with an NTK factor, got {self.d_head}")
        if len(self.windowed_layers) != self.n_layers:
            raise ConfigError(
                f"windowed_layers must name each of the {self.n_layers} layers, "
                f"got {len(self.windowed_layers)} entries"
            )
        if any(self.windowed_layers) and (self.window is None or self.window < 1):
            raise ConfigError(
                f"window must be at least 1 where a layer is windowed, got {self.window}"
            )

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

    @property
    def n_weights(self) -> int:
        """Weights of the matrices, cross-attention and biases not counted."""
        attention = 2 * self.d_model * (self.d_attn + self.d_kv)
        return self.n_layers * (attention + (2 + self.gated) * self.d_model * self.d_ff)

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
    eos_id: int | None  # None: no token ends a text
    mask_decoder_pads: bool  # do pad tokens in the decoder's input hide themselves from others?
    dropout: float  # rate, in training only
    more_eos_ids: tuple[int, ...] = ()  # other tokens that end a text
    encoder_pad_id: int | None = None  # where it is not pad_id; -1: the encoder has none
    mask_cross_pads: bool = True  # do pads of the encoder's input hide from the decoder?
    unseeing: Literal["zero", "mean"] = "zero"  # what a token reads that may see none

    def __post_init__(self) -> None:
        """Check each field, then the relations between fields."""
        check_kinds(self, ConfigError)
        check_fields(self, MODEL_RANGES, ConfigError)
        if self.encoder is None and self.decoder is None:
            raise ConfigError("a model must have an encoder or a decoder, got neither")
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
        read_by_both = min(self.vocab_size, self.encoder_vocab_size) if both else self.vocab_size
        of_decoder = token_range(self.vocab_size)
        of_pad = token_range(read_by_both) if self.encoder_pad_id is None else of_decoder
        of_source = replace(token_range(self.encoder_vocab_size), low=-1)
        tokens = {"pad_id": of_pad, "bos_id": of_decoder, "eos_id": of_decoder,
                  "encoder_pad_id": of_source}  # fmt: skip
        check_fields(self, tokens, ConfigError)
        for token in self.more_eos_ids:
            of_decoder.check("more_eos_ids", token, ConfigError)
        tables = sum(stack.d_model * self.vocab_size for stack in self.stacks.values())
        n_weights = tables + sum(stack.n_weights for stack in self.stacks.values())
        WEIGHTS.check("the number of weights", n_weights, ConfigError)

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The stacks that exist, by name, encoder first."""
        named = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: stack for name, stack in named.items() if stack is not None}

    def embedding_site(self, stack: str) -> str:
        """Site of the embedding table that a stack reads."""
        return "embedding" if self.shared_embedding else f"{stack}.embedding"

    @property
    def end_token(self) -> int:
        """The token that ends a text; ConfigError if none does."""
        if self.eos_id is None:
            raise ConfigError(f"{self.name} must have an eos_id where texts end, got none")
        return self.eos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends a text."""
        return self.more_eos_ids if self.eos_id is None else (self.eos_id, *self.more_eos_ids)

    @property
    def source_pad(self) -> int:
        """The token that fills rows of the encoder's input."""
        return self.pad_id if self.encoder_pad_id is None else max(self.encoder_pad_id, 0)

    @property
    def head_site(self) -> str:
        """Site whose weight the vocabulary projection uses."""
        return self.embedding_site("decoder") if self.tied_head else "head"

    def to_json(self) -> str:
        """Return the configuration as a JSON text that `from_json` reads back.

        Fields that have their default are left out.
        """
        data = _said(self)
        stacks = {name: _said(stack) for name, stack in self.stacks.items()}
        return json.dumps(data | stacks)

    @classmethod
    def from_json(cls, text: str, where: str = "configuration") -> Self:
        """Read a configuration written by `to_json`.

        Args:
            text: JSON.
            where: it stands, for messages.

        Returns:
            The configuration.

        Raises:
            ConfigError: not JSON, or a field is missing, unknown or inconsistent.
        """
        data = parse_json(text, where, "JSON of a model", ConfigError)
        exact_fields(cls, data, where, ConfigError, _defaults(cls))
        for name in ("encoder", "decoder"):
            if data[name] is not None:
                data[name] = _stack_of(data[name], f"{where}: {name}")
        if isinstance(data.get("more_eos_ids"), list):
            data["more_eos_ids"] = tuple(data["more_eos_ids"])
        with located(f"{where}: "):
            return cls(**data)


def _said(values: ModelConfig | StackConfig) -> dict[str, object]:
    """Fields by name, without those that have their default."""
    return {
        field.name: getattr(values, field.name)
        for field in fields(values)
        if getattr(values, field.name) != field.default
    }


def _defaults(kind: type) -> list[str]:
    """Fields that a file may leave out."""
    return [field.name for field in fields(kind) if field.default is not MISSING]


def _stack_of(data: object, where: str) -> StackConfig:
    stack = exact_fields(StackConfig, data, where, ConfigError, _defaults(StackConfig))
    if isinstance(stack["windowed_layers"], list):
        stack["windowed_layers"] = tuple(stack["windowed_layers"])
    with located(f"{where}."):
        return StackConfig(**stack)


def model_fields(model: ModelConfig) -> dict[str, Any]:
    """Return {path: value} of every field of a model that can be set.

    >>> import mu_ref
    >>> from mu_ref.config import model_fields
    >>> model_fields(mu_ref.preset("mu-nano"))["decoder.activation"]
    'gelu_tanh'
    """
    found = {
        f"{stack_name}.{field.name}": getattr(stack, field.name)
        for stack_name, stack in model.stacks.items()
        for field in fields(stack)
        if field.name not in NOT_SET
    }
    own = {field.name: getattr(model, field.name) for field in fields(model)}
    return found | {name: value for name, value in own.items() if name not in NOT_SET}


def with_model_fields(
    model: ModelConfig, changes: Mapping[str, Any], error: type[MuRefError] = InputError
) -> ModelConfig:
    """Return a model with some fields changed, together.

        >>> import mu_ref
        >>> from mu_ref.config import with_model_fields
        >>> with_model_fields(mu_ref.preset("mu-nano"), {"decoder.n_layers": 2}).decoder.n_layers
        2

    Args:
        model: the configuration.
        changes: {path: value}; paths are those of `model_fields`, texts are read.
        error: class to raise for a path that there is not.

    Returns:
        The changed configuration. A window that no layer had is then every layer's.

    Raises:
        MuRefError: no such field, a value that is not allowed, or fields that do not fit together.
    """
    now = model_fields(model)
    stacks: dict[str, dict[str, Any]] = {name: {} for name in model.stacks}
    own: dict[str, Any] = {}
    for path, given in changes.items():
        check_choice("field of a model", path, now, error)
        part, _, name = path.rpartition(".")
        (stacks[part] if part else own)[name] = kind_of_field(given, now[path])
    if "vocab_size" in own and model.shared_embedding:
        own.setdefault("encoder_vocab_size", own["vocab_size"])
    own |= {name: _stack(model.stacks[name], more) for name, more in stacks.items() if more}
    return replace(model, **own)


def _stack(stack: StackConfig, changes: dict[str, Any]) -> StackConfig:
    """Windows follow: which layers have one is said once for each layer."""
    windowed, n_layers = stack.windowed_layers, changes.get("n_layers", stack.n_layers)
    if isinstance(n_layers, int) and 0 < n_layers <= 2**16 and n_layers != len(windowed):
        windowed = (windowed * n_layers)[:n_layers]
    if "window" in changes and (changes["window"] is None or not any(windowed)):
        windowed = (changes["window"] is not None,) * len(windowed)
    return replace(stack, **changes, windowed_layers=windowed)
