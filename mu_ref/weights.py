"""Weights: which tensors a configuration has, counted without allocation; safetensors in and out.

A weight file is a safetensors file whose metadata holds the configuration. Names are sites plus
`.weight` or `.bias`. Loading is strict: same names, same shapes, or a clear error.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_finite, check_floats, read_safetensors
from mu_ref.border.files import written_whole
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import WeightsError

__all__ = [
    "check_names",
    "count_parameters",
    "initial_weights",
    "load_weights",
    "read_safetensors",
    "save_weights",
    "weight_shapes",
    "write_safetensors",
]

Shape = tuple[int, ...]
Weights = dict[str, np.ndarray]


def weight_shapes(model: ModelConfig) -> dict[str, Shape]:
    """List every weight of a model with its shape.

    Args:
        model: the configuration.

    Returns:
        {"site.weight" or "site.bias": shape}, embeddings first, then layers in order.
    """
    shapes: dict[str, Shape] = {}
    for name, stack in model.stacks.items():  # a shared table is named, and listed, once
        alone = model.decoder is None
        rows = model.encoder_vocab_size if name == "encoder" and not alone else model.vocab_size
        shapes[f"{model.embedding_site(name)}.weight"] = (rows, stack.d_model)
    for name, stack in model.stacks.items():
        if stack.embed_norm:
            shapes |= _norm(f"{name}.embed_norm", stack)
        d_memory = model.encoder.d_model if name == "decoder" and model.encoder else None
        for layer in range(stack.n_layers):
            shapes |= dict(_layer(f"{name}.{layer}", stack, d_memory))
        shapes |= _norm(f"{name}.final_norm", stack)
    if model.decoder is not None:
        if not model.tied_head:
            shapes["head.weight"] = (model.vocab_size, model.decoder.d_model)
        if model.head_bias:
            shapes["head.bias"] = (model.vocab_size,)
    return shapes


def _layer(site: str, stack: StackConfig, d_memory: int | None) -> Iterator[tuple[str, Shape]]:
    sublayers = {"self_attention": stack.d_model}
    if d_memory is not None:
        sublayers["cross_attention"] = d_memory  # its k and v read the encoder's width
    for sublayer, d_key in sublayers.items():
        at = f"{site}.{sublayer}"
        yield from _around(at, stack)
        linears = {
            "q": (stack.d_attn, stack.d_model),
            "k": (stack.d_kv, d_key),
            "v": (stack.d_kv, d_key),
            "o": (stack.d_model, stack.d_attn),
        }
        for name, shape in linears.items():
            yield from _linear(f"{at}.{name}", shape, stack.attention_bias)
    yield from _around(f"{site}.mlp", stack)
    for name in ("up", "gate") if stack.gated else ("up",):
        yield from _linear(f"{site}.mlp.{name}", (stack.d_ff, stack.d_model), stack.mlp_bias)
    yield from _linear(f"{site}.mlp.down", (stack.d_model, stack.d_ff), stack.mlp_bias)


def _around(site: str, stack: StackConfig) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{site}.pre_norm", stack).items()
    if stack.norm_placement == "dual":
        yield from _norm(f"{site}.post_norm", stack).items()


def _norm(site: str, stack: StackConfig) -> dict[str, Shape]:
    names = ("weight", "bias") if stack.norm_kind == "layer" else ("weight",)  # RMS has no bias
    return {f"{site}.{name}": (stack.d_model,) for name in names}


def _linear(site: str, shape: Shape, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{site}.weight", shape
    if bias:
        yield f"{site}.bias", shape[:1]


def count_parameters(model: ModelConfig, prefix: str = "") -> int:
    """Count the parameters whose name starts with `prefix`, without allocating any.

    Args:
        model: the configuration.
        prefix: for example "encoder."; everything by default.

    Returns:
        The count; a tied head counts once.
    """
    shapes = weight_shapes(model)
    return sum(int(np.prod(shapes[name])) for name in shapes if name.startswith(prefix))


def initial_weights(
    model: ModelConfig,
    rng: np.random.Generator,
    std: float = 0.02,
    dtype: type = np.float32,
    *,
    embedding_std: float | None = None,
    post_norm_gain: float = 1.0,
) -> Weights:
    """Draw weights: matrices from N(0, std²), biases 0, gains 1 (0 where the norm adds 1).

    Args:
        model: the configuration.
        rng: source of randomness.
        std: 0.02 is the public Mu code's.
        dtype: of the arrays.
        embedding_std: of embedding tables; `std` by default.
        post_norm_gain: of the norms after sub-layers. Below 1, no sub-layer drowns the embedding.

    Returns:
        {name: array}.
    """
    weights: Weights = {}
    plus_one = {name for name, stack in model.stacks.items() if stack.norm_kind == "rms_plus_one"}
    for name, shape in weight_shapes(model).items():
        if len(shape) == 2:
            table = name.endswith("embedding.weight")
            # the stream starts as an embedding: its size is a choice of its own
            size = embedding_std if table and embedding_std is not None else std
            weights[name] = (rng.standard_normal(shape) * size).astype(dtype)
        elif name.endswith("norm.weight"):
            gain = post_norm_gain if name.endswith("post_norm.weight") else 1.0
            offset = 1 if name.split(".")[0] in plus_one else 0  # these norms add 1 themselves
            weights[name] = np.full(shape, gain - offset, dtype)
        else:
            weights[name] = np.zeros(shape, dtype)
    return weights


def save_weights(
    path: Path,
    model: ModelConfig,
    weights: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write weights with their configuration; the file appears whole or not at all.

    Args:
        path: a .safetensors file.
        model: goes into the metadata.
        weights: exactly the tensors of `weight_shapes(model)`.
        notes: more texts for the metadata, such as how the weights were made.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape, or a number in it is NaN or
            infinite.
    """
    check_names(path.name, weight_shapes(model), {n: w.shape for n, w in weights.items()})
    check_finite(path.name, weights)
    write_safetensors(path, weights, {**(notes or {}), "config": model.to_json()})


def load_weights(path: Path) -> tuple[ModelConfig, Weights]:
    """Read a file written by `save_weights`.

    Args:
        path: a .safetensors file.

    Returns:
        The configuration and {name: array} in the stored dtype.

    Raises:
        WeightsError: not there, damaged, without a configuration, or of other names, shapes or
            kinds of numbers.
        ConfigError: its configuration is none.
    """
    weights, metadata = read_safetensors(path)
    if "config" not in metadata:
        raise WeightsError(
            f"{path} must hold a mu-ref configuration in its metadata; it has none. "
            "Another project's checkpoint is read as a folder with config.json"
        )
    model = ModelConfig.from_json(metadata["config"], f"{path}: configuration")
    check_names(str(path), weight_shapes(model), {n: w.shape for n, w in weights.items()})
    check_floats(str(path), weights)
    return model, weights


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file that appears whole or not at all; same content, same bytes.

    Args:
        path: where the file ends up; WeightsError if the disk does not take it.
        tensors: {name: array}.
        metadata: texts by name.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with written_whole(path) as part:
        try:
            save_file(contiguous, part, metadata)
        except SafetensorError as error:
            raise WeightsError(f"{path} must be written whole, but: {error}") from error
        _sort_metadata(part)


def _sort_metadata(path: Path) -> None:
    """Sort the texts of a header, which the library writes in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(text.encode().ljust(size))


def check_names(what: str, wanted: Mapping[str, Shape], got: Mapping[str, Shape]) -> None:
    """Check that a file holds exactly the wanted tensors, in shape too.

    Args:
        what: the file, for the message.
        wanted: {name: shape} of the configuration.
        got: {name: shape} of the file.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    missing, unknown = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
    if missing or unknown:
        raise WeightsError(
            f"{what} must hold exactly the {len(wanted)} tensors of its configuration; "
            f"missing {missing[:3]} ({len(missing)} in all), unknown {unknown[:3]} "
            f"({len(unknown)} in all)"
        )
    for name, shape in wanted.items():
        if tuple(got[name]) != shape:
            raise WeightsError(f"{what}: {name} must have shape {shape}, got {tuple(got[name])}")
