"""LoRA: learn a task by a low-rank change of some linear layers; the base stays as it is.

A change is small enough to keep one for each task: `lora_ops` runs the base with one of them,
and with another one for the next query; `merged` makes plain weights of both.
Chapter: `docs/09_training.md`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mu_ref.border.arrays import check_finite
from mu_ref.border.ranges import FACTOR, RANK, check_fields
from mu_ref.border.reading import exact_fields, parse_json
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, WeightsError
from mu_ref.ops import Ops
from mu_ref.ops.lora import LoraOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.weights import (
    Shape,
    Weights,
    check_names,
    count_parameters,
    read_safetensors,
    weight_shapes,
    write_safetensors,
)  # fmt: skip

__all__ = [
    "Adapter", "LoraConfig", "initial_lora", "load_adapter", "lora_ops", "lora_shapes",
    "lora_sites", "merged", "save_adapter", "trained_share",
]  # fmt: skip

RANGES = MappingProxyType({"rank": RANK, "alpha": FACTOR})
SITES = ("decoder.*",)  # what was read stays; what is written changes


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Which layers change, and how freely.

    Raises:
        InputError: a number out of range, or no site.
    """

    rank: int = 10
    alpha: float = 20.0  # the change is alpha / rank B A
    sites: tuple[str, ...] = SITES  # patterns of sites of linear layers

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self, RANGES, InputError)
        if not self.sites:
            raise InputError("sites must name at least one pattern, such as *.q; got none")

    @property
    def factor(self) -> float:
        """What the product B A is multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained change: its configuration, its matrices, and the base that it belongs to."""

    lora: LoraConfig
    weights: Weights
    base: str  # SHA-256 of the base's weight file
    notes: Mapping[str, str]


def lora_sites(model: ModelConfig, lora: LoraConfig) -> list[str]:
    """List the linear layers that change, in the order of the model.

    Args:
        model: of the base.
        lora: uses `sites`.

    Returns:
        Sites; embeddings and a head tied to them are none.

    Raises:
        InputError: a pattern fits no linear layer.
    """
    sites = [
        name.removesuffix(".weight")
        for name, shape in weight_shapes(model).items()
        if len(shape) == 2 and not name.endswith("embedding.weight")
    ]
    for pattern in lora.sites:
        if not any(fnmatchcase(site, pattern) for site in sites):
            raise InputError(
                f"a pattern of sites must fit a linear layer of {model.name}, got {pattern!r}; "
                f"one is {sites[0]}"
            )
    return [site for site in sites if any(fnmatchcase(site, p) for p in lora.sites)]


def lora_shapes(model: ModelConfig, lora: LoraConfig) -> dict[str, Shape]:
    """List the matrices of a LoRA: {"site.lora_a.weight" or "site.lora_b.weight": shape}."""
    base = weight_shapes(model)
    shapes: dict[str, Shape] = {}
    for site in lora_sites(model, lora):
        d_out, d_in = base[f"{site}.weight"]
        shapes[f"{site}.lora_a.weight"] = (lora.rank, d_in)
        shapes[f"{site}.lora_b.weight"] = (d_out, lora.rank)
    return shapes


def trained_share(model: ModelConfig, lora: LoraConfig) -> float:
    """Return the parameters of a LoRA as a share of the model's."""
    own = sum(int(np.prod(shape)) for shape in lora_shapes(model, lora).values())
    return own / count_parameters(model)


def initial_lora(model: ModelConfig, lora: LoraConfig, rng: np.random.Generator) -> Weights:
    r"""Draw A, and leave B at 0, so that training starts at the base itself.

    $$y = x W^T + \frac{\alpha}{r} (x A^T) B^T, \quad A_{ij} \sim N(0, 1 / d_{in}), \quad
      B = 0$$                                                                            (3.7)

    Args:
        model: of the base.
        lora: the configuration.
        rng: source of randomness.

    Returns:
        {name: float32 array}, in the order of `lora_shapes`.

    Source:
        Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """
    return {
        name: (rng.standard_normal(shape) / shape[1] ** 0.5).astype(np.float32)
        if name.endswith("lora_a.weight")
        else np.zeros(shape, np.float32)
        for name, shape in lora_shapes(model, lora).items()
    }


def merged(
    base: Mapping[str, np.ndarray], lora: LoraConfig, adapter: Mapping[str, np.ndarray]
) -> Weights:
    r"""Return plain weights that compute what base and LoRA compute together.

    $$W' = W + \frac{\alpha}{r} B A$$                                                    (3.8)

    Args:
        base: weights of the model.
        lora: uses the factor.
        adapter: matrices of the LoRA.

    Returns:
        Weights in the base's order and dtype; those that do not change are not copied. The sum is
        made in float64 and rounded once.
    """
    weights = dict(base)
    for name in adapter:
        site, is_a, _ = name.partition(".lora_a.weight")
        if is_a:
            w = weights[f"{site}.weight"]
            a, b = adapter[name], adapter[f"{site}.lora_b.weight"]
            change = lora.factor * (b.astype(np.float64) @ a.astype(np.float64))
            weights[f"{site}.weight"] = (w + change).astype(w.dtype)
    return weights


def lora_ops(
    base: Mapping[str, np.ndarray], adapter: Adapter | None, dtype: type = np.float32
) -> Ops:
    """Return an executor of a base with one of its changes, or of the base alone.

    Nothing is merged or copied: switching from one task to another is another call.

        >>> import numpy as np
        >>> from mu_ref.training.lora import Adapter, LoraConfig, lora_ops
        >>> base = {"up.weight": np.eye(2, dtype=np.float32)}
        >>> change = {"up.lora_a.weight": np.ones((1, 2)), "up.lora_b.weight": np.ones((2, 1))}
        >>> swap = Adapter(LoraConfig(rank=1, alpha=1, sites=("up",)), change, "", {})
        >>> x = np.array([[3, 4]], np.float32)
        >>> [lora_ops(base, task).linear(x, "up").tolist() for task in (None, swap)]
        [[[3.0, 4.0]], [[10.0, 11.0]]]

    Args:
        base: weights of the model, in `dtype`.
        adapter: the change.
        dtype: np.float32 or np.float64.

    Returns:
        The executor; rows keep their bits, so that drafts may be used.
    """
    if adapter is None:
        return ReferenceOps(base, dtype)
    factors = {
        name.removesuffix(".lora_a.weight"): adapter.lora.factor
        for name in adapter.weights
        if name.endswith(".lora_a.weight")
    }
    return LoraOps(ReferenceOps({**base, **adapter.weights}, dtype), factors)


def save_adapter(path: Path, model: ModelConfig, adapter: Adapter) -> None:
    """Write a LoRA with what it belongs to; the file appears whole or not at all.

    Args:
        path: a .safetensors file.
        model: of the base.
        adapter: the change.

    Raises:
        WeightsError: a matrix is missing, unknown or of another shape, or holds no numbers.
    """
    shapes = {name: array.shape for name, array in adapter.weights.items()}
    check_names(path.name, lora_shapes(model, adapter.lora), shapes)
    check_finite(path.name, adapter.weights)
    own = {"lora": json.dumps(asdict(adapter.lora)), "base": adapter.base}
    write_safetensors(path, adapter.weights, {**adapter.notes, **own})


def load_adapter(path: Path, model: ModelConfig, base: str) -> Adapter:
    """Read a file written by `save_adapter`.

    Args:
        path: a .safetensors file.
        model: of the base.
        base: SHA-256 of the base's weight file.

    Returns:
        The change.

    Raises:
        WeightsError: the file is damaged, no LoRA, of another model, or of other weights: a
            change that was learnt on others changes these into nothing useful.
    """
    weights, notes = read_safetensors(path)
    if "lora" not in notes or "base" not in notes:
        raise WeightsError(f"{path} must be a LoRA from `mu-ref lora train`; its metadata has none")
    where = f"{path}: lora"
    data = exact_fields(
        LoraConfig, parse_json(notes.pop("lora"), where, "JSON of a LoRA", WeightsError), where,
        WeightsError,
    )  # fmt: skip
    if not isinstance(data["sites"], list):
        raise WeightsError(f"{where}: sites must be a list of patterns, got {data['sites']!r}")
    lora = LoraConfig(**data | {"sites": tuple(map(str, data["sites"]))})
    shapes = {name: array.shape for name, array in weights.items()}
    check_names(str(path), lora_shapes(model, lora), shapes)
    check_finite(str(path), weights)
    trained_on = notes.pop("base")
    if trained_on != base:
        raise WeightsError(
            f"{path} must be a LoRA of these weights, it was trained on others (SHA-256 "
            f"{trained_on[:12]}, got {base[:12]}); give the base that it was trained on"
        )
    return Adapter(lora, weights, trained_on, notes)
