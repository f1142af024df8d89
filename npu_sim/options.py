"""Options that several commands of `npu-sim` share, and how their texts are read."""

from typing import Annotated

import typer

from npu_sim.errors import WorkloadError
from npu_sim.program import Precision

__all__ = [
    "ActivationBitsOption",
    "ContextOption",
    "HeadBitsOption",
    "HfConfigOption",
    "JsonOption",
    "KvBitsOption",
    "ModelJsonOption",
    "NpuOption",
    "RuntimeOption",
    "WeightBitsOption",
    "cycle_budgets",
    "precision_of",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
NpuOption = Annotated[
    str, typer.Option("--npu", help="NPU of `npu-sim hardware list`, or FILE.toml.")
]
WeightBitsOption = Annotated[int, typer.Option(help="Width of weights: 4, 8 or 16.")]
ActivationBitsOption = Annotated[int, typer.Option(help="Width of activations: 8 or 16.")]
KvBitsOption = Annotated[int, typer.Option(help="Width of cached keys and values.")]
ModelJsonOption = Annotated[
    str | None, typer.Option(help="FILE#name: a model of a neutral JSON file.")
]
HfConfigOption = Annotated[
    str | None, typer.Option(help="config.json of a Hugging Face model, or its folder.")
]
ContextOption = Annotated[
    int | None, typer.Option(help="Slots that every call processes; exact lengths by default.")
]
RuntimeOption = Annotated[str, typer.Option(help="Who calls the graphs: native or geniex.")]
HeadBitsOption = Annotated[
    int | None,
    typer.Option(help="Width of the vocabulary projection; as the weights, at least 8."),
]


def precision_of(
    weight_bits: int, activation_bits: int, kv_bits: int, head_weight_bits: int | None
) -> Precision:
    """Return the widths; the head has those of the weights, at least 8, unless it is given."""
    head = max(weight_bits, 8) if head_weight_bits is None else head_weight_bits
    return Precision(
        weight_bits=weight_bits, activation_bits=activation_bits, kv_bits=kv_bits,
        head_weight_bits=head,
    )  # fmt: skip


def cycle_budgets(texts: list[str]) -> dict[str, int]:
    """Read budgets such as "encode=9000000".

    Args:
        texts: from the command line.

    Returns:
        {phase: cycles}.

    Raises:
        WorkloadError: not of that form.
    """
    budgets = {}
    for text in texts:
        phase, _, cycles = text.partition("=")
        if not phase or not cycles.isdecimal():
            raise WorkloadError(
                f"a phase budget must have the form PHASE=CYCLES, got {text!r}; for example "
                "decode=200000000"
            )
        budgets[phase] = int(cycles)
    return budgets
