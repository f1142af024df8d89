"""Export a model as ONNX graphs: encoder, decoder with a cache, drafter.

What the model's functions are given as plain arrays, the graphs are given as inputs: token ids,
masks (True where a query sees a key), cosines and sines of RoPE. `decoder.place` and
`ops/rotation.py` say how they come about, and `docs/onnx.md` shows a run.

encoder: tokens, cos, sin, mask -> hidden, and for each decoder layer `.k_split`, `.v_split` of its
cross-attention. decoder: tokens, cos, sin, mask, these, memory_mask, `.k_cache.past` and
`.v_cache.past` of each self-attention -> logits, hidden, `.k_cache`, `.v_cache`. drafter: tokens,
hidden, state -> logits, next_state. A stack with windows has `mask.window` too.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mu_ref.border.files import check_folder
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import InputError, check_choice
from mu_ref.executors import Loaded, load_model
from mu_ref.model import mu
from mu_ref.model.attention import project_memory
from mu_ref.model.cache import Cache, LayerCache, LayerMemory, Memory
from mu_ref.model.decoder import Placed, run_layers
from mu_ref.model.encoder import embed, run_encoder
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.onnx.graph import Graph, check_installed, made_here
from mu_ref.ops.onnx.numbers import FloatParts, IntegerParts
from mu_ref.ops.onnx.ops import OnnxOps, Turn
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores

__all__ = ["ONNX_SCHEMES", "export_onnx", "graphs_of"]

ONNX_SCHEMES = ("float32", "w8a16", "w8a8")
GRAPHS = ("encoder", "decoder", "drafter")
MASKS = MappingProxyType({True: "mask.window", False: "mask"})


def export_onnx(
    folder: Path, weights: Path | None, scheme: str, drafter: Path | None = None
) -> dict[Path, int]:
    """Write the graphs of a model.

    Args:
        folder: where `encoder.onnx`, `decoder.onnx` and `drafter.onnx` go: a new one, or one that
            holds such files only. Those of an earlier export are replaced or removed.
        weights: file or folder; the shipped model of the scheme by default.
        scheme: one of `ONNX_SCHEMES`; must be that of the file.
        drafter: also written, if given; must be of the scheme.

    Returns:
        {file: bytes}.

    Raises:
        InputError: an unknown scheme, a folder that holds other things or cannot be written, or
            the package `onnx` is not installed.
        WeightsError: a file is damaged or foreign.
        ConfigError: the drafter was made for another model.
    """
    check_choice("scheme", scheme, ONNX_SCHEMES)
    if weights is not None and weights.is_dir() and scheme != "float32":
        raise InputError(
            f"a checkpoint's folder must be exported in float32, got {scheme} for {weights}; "
            "`mu-ref quantize` makes integers"
        )
    check_installed()
    check_folder(folder, "exported graphs", _is_ours)
    loaded = load_model(weights, scheme, "reference", drafter)
    graphs = graphs_of(loaded)
    notes = {"scheme": scheme, "config": loaded.model.to_json()}
    if loaded.drafter is not None:
        notes["drafter"] = loaded.drafter.to_json()
    folder.mkdir(exist_ok=True)
    for path in _files(folder):
        path.unlink(missing_ok=True)
    return {folder / f"{g.name}.onnx": g.save(folder / f"{g.name}.onnx", notes) for g in graphs}


def _files(folder: Path) -> list[Path]:
    return [folder / f"{name}.onnx{end}" for name in GRAPHS for end in ("", ".data")]


def _is_ours(path: Path) -> bool:
    """Say whether an earlier export has written a file of the folder."""
    graph = path.with_name(path.name.removesuffix(".data"))
    return path in _files(path.parent) and graph.is_file() and made_here(graph)


def graphs_of(loaded: Loaded) -> list[Graph]:
    """Build every graph that a model has.

    Args:
        loaded: on a NumPy executor.

    Returns:
        Those of `GRAPHS` that exist, in that order.
    """
    model, found = loaded.model, []
    if model.encoder is not None:
        found.append(_encoder(_writer(loaded, "encoder"), model, model.encoder))
    if model.decoder is not None:
        found.append(_decoder(_writer(loaded, "decoder"), model, model.decoder))
    if loaded.drafter is not None:
        found.append(_drafter(_writer(loaded, "drafter"), model, loaded.drafter))
    return found


def _writer(loaded: Loaded, name: str) -> OnnxOps:
    graph, ops = Graph(name), loaded.ops
    if isinstance(ops, IntegerOps):
        return OnnxOps(IntegerParts(graph, ops.model))
    return OnnxOps(FloatParts(graph, ops.weights))  # type: ignore[attr-defined]  # ReferenceOps


def _encoder(ops: OnnxOps, model: ModelConfig, stack: StackConfig) -> Graph:
    tokens: Any = ops.graph.take("tokens", ("batch", "n_src"), np.int64)
    turn: Any = Turn(ops.graph, ("batch", "n_src", stack.d_head // 2))
    hidden = run_encoder(ops, model, tokens, turn, _masks(ops.graph, stack, "n_src", "n_src"))
    ops.give(hidden, "hidden")
    if model.decoder is not None:
        for layer in range(model.decoder.n_layers):
            site = f"decoder.{layer}.cross_attention"
            memory = project_memory(ops, model.decoder, hidden, np.ones(1), site)
            ops.give(memory.k, f"{site}.k_split")
            ops.give(memory.v, f"{site}.v_split")
    return ops.graph


def _decoder(ops: OnnxOps, model: ModelConfig, stack: StackConfig) -> Graph:
    tokens: Any = ops.graph.take("tokens", ("batch", "n_new"), np.int64)
    turn: Any = Turn(ops.graph, ("batch", "n_new", stack.d_head // 2))
    masks: Any = _masks(ops.graph, stack, "n_new", "n_slots")
    memory = None if model.encoder is None else _memory(ops, stack)
    cache = Cache.empty(1, stack.n_layers)
    sites = [f"decoder.{layer}.self_attention" for layer in range(stack.n_layers)]
    cache.layers = [_past(ops, stack, site) for site in sites]
    placed = Placed(tokens, turn, masks, "n_new")  # type: ignore[arg-type]  # all are asked for
    hidden = run_layers(ops, model, placed, memory, cache)
    ops.give(mu.logits(ops, model, hidden), "logits", real=True)
    ops.give(hidden, "hidden")
    for site, grown in zip(sites, cache.layers, strict=True):
        for name, value in (("k_cache", grown.k), ("v_cache", grown.v)):
            assert value is not None  # the layer has appended to it
            ops.give(value, f"{site}.{name}")
    return ops.graph


def _drafter(ops: OnnxOps, model: ModelConfig, drafter: DrafterConfig) -> Graph:
    shape = ("batch", "n_beams", drafter.d_model)
    tokens: Any = ops.graph.take("tokens", shape[:2], np.int64)
    hidden = ops.parts.given("hidden", shape, "decoder.final_norm")
    state = ops.parts.given("state", shape, _state_site(drafter))
    after = advance(ops, drafter, embed(ops, model, tokens, "decoder"), state)
    ops.give(scores(ops, drafter, hidden, after), "logits", real=True)
    ops.give(after, "next_state")
    return ops.graph


def _state_site(drafter: DrafterConfig) -> str:
    return "drafter.state" if drafter.rnn else "drafter.state_sum"


def _masks(
    graph: Graph, stack: StackConfig, queries: str, keys: str
) -> Mapping[int | None, np.ndarray]:
    """An input for each of the masks of a stack: `mask`, `mask.window`."""
    shape = ("batch", 1, queries, keys)
    masks: Any = {w: graph.take(MASKS[w is not None], shape, np.bool_) for w in stack.windows}
    return masks


def _memory(ops: OnnxOps, stack: StackConfig) -> Memory:
    mask: Any = ops.graph.take("memory_mask", ("batch", 1, 1, "n_src"), np.bool_)
    layers = []
    for layer in range(stack.n_layers):
        site = f"decoder.{layer}.cross_attention"
        shape = ("batch", stack.n_kv_heads, "n_src", stack.d_head)
        k, v = (ops.parts.given(f"{site}.{n}_split", shape, f"{site}.{n}") for n in "kv")
        layers.append(LayerMemory(k, v, mask))
    return Memory(None, layers)  # the encoder's output itself is not read again


def _past(ops: OnnxOps, stack: StackConfig, site: str) -> LayerCache:
    shape = ("batch", stack.n_kv_heads, "n_past", stack.d_head)
    return LayerCache(
        ops.parts.given(f"{site}.k_cache.past", shape, f"{site}.k_rope"),
        ops.parts.given(f"{site}.v_cache.past", shape, f"{site}.v"),
    )
