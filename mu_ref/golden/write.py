"""Write golden files of a model: its operations, its layers, or whole runs, site by site."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.arrays import check_rows, check_tokens
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import InputError, check_choice
from mu_ref.executors import Loaded, float_executor, load_model
from mu_ref.golden.edge_cases import edge_cases
from mu_ref.golden.folder import check_golden_folder, write_golden
from mu_ref.golden.layers import N_SOURCE, N_TOKENS, record_layers
from mu_ref.golden.operations import record_operations
from mu_ref.golden.record import record_run
from mu_ref.integers.tables import TABLES, table, turn_steps
from mu_ref.model.rope import rope_theta
from mu_ref.ops.integer import IntegerOps
from mu_ref.redrafter.beams import Search

__all__ = [
    "DEPTHS", "GOLDEN_SCHEMES", "Tokens", "write_layers", "write_operations", "write_run",
]  # fmt: skip

DEPTHS = ("ops", "layers", "model")
GOLDEN_SCHEMES = ("float32", "float64", "w8a16", "w8a8")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a run reads."""

    source: np.ndarray | None  # [batch, n_src] int; None for a decoder-only model
    source_valid: np.ndarray | None  # [batch, n_src] bool
    prompt: np.ndarray  # [batch, n_prompt] int
    source_read: np.ndarray | None = None  # as source_valid, by the decoder; the same if None
    prompt_valid: np.ndarray | None = None  # [batch, n_prompt] bool; all if None


def write_operations(folder: Path) -> int:
    """Write the operation tier: every operation of the integer executor on its edge cases.

    Args:
        folder: a new one, or one of golden files.

    Returns:
        Bytes that were written.
    """
    entries, cases = record_operations(edge_cases())
    return write_golden(folder, entries, _tables(), {"depth": "ops", "cases": cases})


def write_layers(folder: Path, weights: Path | None, scheme: str, seed: int = 0) -> int:
    """Write each layer of a model by itself, on random inputs.

    Args:
        folder: a new one, or one of golden files.
        weights: file or folder; the shipped model of the scheme by default.
        scheme: one of `GOLDEN_SCHEMES`; must be that of the file.
        seed: of the inputs.

    Returns:
        Bytes that were written.

    Raises:
        InputError: an unknown scheme, or a folder with other things in it.
        WeightsError: the file is damaged or foreign.
    """
    loaded, ops = _loaded(folder, weights, scheme)
    recorder = record_layers(ops, loaded.model, seed)
    said = {"depth": "layers", "scheme": scheme, "seed": seed, **_of_model(loaded, ops)}
    longest = max(N_SOURCE, N_TOKENS)
    return write_golden(folder, recorder.entries, _constants(ops, loaded.model, longest), said)


def write_run(
    folder: Path,
    weights: Path | None,
    scheme: str,
    tokens: Tokens,
    max_new_tokens: int = 32,
    drafter: Path | None = None,
    search: Search | None = None,
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write a whole run of a model.

    Args:
        folder: a new one, or one of golden files.
        weights: file or folder; the shipped model of the scheme by default.
        scheme: one of `GOLDEN_SCHEMES`; must be that of the file.
        tokens: what the run reads.
        max_new_tokens: its limit.
        drafter: a run with drafts.
        search: how to draft.
        about: what else the manifest says, such as the query.

    Returns:
        Bytes that were written.

    Raises:
        InputError: an unknown scheme, tokens that the model does not have, or a folder with other
            things in it.
        WeightsError: the file is damaged or foreign.
    """
    loaded, ops = _loaded(folder, weights, scheme, drafter)
    model = loaded.model
    _check_tokens(model, tokens)
    recorder = record_run(
        ops, model, tokens.source, tokens.source_valid, tokens.prompt, max_new_tokens,
        loaded.drafter, search, tokens.source_read, tokens.prompt_valid,
    )  # fmt: skip
    said = {"depth": "model", "scheme": scheme, **(about or {}), "max_new_tokens": max_new_tokens}
    said |= _of_model(loaded, ops)
    if loaded.drafter is not None and search is not None:
        said |= {"drafter": json.loads(loaded.drafter.to_json()), "search": asdict(search)}
    longest = _longest(tokens, max_new_tokens)
    return write_golden(folder, recorder.entries, _constants(ops, model, longest), said)


def _loaded(
    folder: Path, weights: Path | None, scheme: str, drafter: Path | None = None
) -> tuple[Loaded, Any]:
    """Check what can be checked before the work; return the model and its executor."""
    check_choice("scheme", scheme, GOLDEN_SCHEMES)
    check_golden_folder(folder)
    double = scheme == "float64"
    loaded = load_model(weights, "float32" if double else scheme, "reference", drafter)
    ops: Any = loaded.ops
    return loaded, float_executor(ops.weights, dtype=np.float64) if double else ops


def _of_model(loaded: Loaded, ops: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"config": json.loads(loaded.model.to_json())}
    if isinstance(ops, IntegerOps):
        said["rounding"] = ops.model.rounding
    return said


def _check_tokens(model: ModelConfig, tokens: Tokens) -> None:
    if (tokens.source is None) != (model.encoder is None):
        rule, got = ("be given", "none") if model.encoder else ("have no", "some")
        raise InputError(f"{model.name} must {rule} encoder_input_ids, got {got}")
    if tokens.source is not None:
        size = model.encoder_vocab_size
        check_rows("encoder_input_ids", tokens.source, tokens.source_valid, size)
    check_tokens("decoder_input_ids", tokens.prompt, model.vocab_size)
    if tokens.source is not None and len(tokens.source) != len(tokens.prompt):
        raise InputError(
            "encoder_input_ids and decoder_input_ids must have as many rows, got "
            f"{len(tokens.source)} and {len(tokens.prompt)}"
        )


def _longest(tokens: Tokens, max_new_tokens: int) -> int:
    """Tokens of the longest text that a run reads or writes."""
    n_source = 0 if tokens.source is None else tokens.source.shape[1]
    return max(n_source, tokens.prompt.shape[1] + max_new_tokens)


def _constants(ops: Any, model: ModelConfig, longest: int) -> dict[str, np.ndarray]:
    """All that makes a port of integers float-free; nothing for floats."""
    if not isinstance(ops, IntegerOps):
        return {}
    turns = {f"{name}.rope_turns": _turns(stack, longest) for name, stack in model.stacks.items()}
    return ops.constants.arrays() | turns | _tables()


def _turns(stack: StackConfig, longest: int) -> np.ndarray:
    """Turns of each length: [n, d_head / 2]; the first row is that of all up to rope_base_len."""
    grows = stack.rope_ntk_factor > 1
    past = np.arange(max(longest - stack.rope_base_len, 0) + 1 if grows else 1)
    theta = rope_theta(stack, stack.rope_base_len + past)
    return np.stack([turn_steps(float(t), stack.d_head, stack.rope_factor) for t in theta])


def _tables() -> dict[str, np.ndarray]:
    return {f"table.{name}": table(name).astype(np.int32) for name in TABLES}
