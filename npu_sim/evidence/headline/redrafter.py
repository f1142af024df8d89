"""ReDrafter's published speed-ups, simulated from the published tokens per step.

Tokens per step are an input: they depend on training data, which no simulator knows. What is
simulated is the time of a step, drafting included, against plain decoding (`roofline` fidelity).
Chapter: `docs/headline.md`. Source of the figures: arXiv:2403.09919v5, Tables 1 to 4.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from mu_ref.presets import preset
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.description import Description, describe
from npu_sim.program.precision import Precision
from npu_sim.speculate.drafter import Drafter
from npu_sim.units import GB
from npu_sim.whatif.metrics import evaluate
from npu_sim.whatif.scenario import Scenario, Workload

__all__ = [
    "DRAFT_LEN",
    "FRAMEWORK_US",
    "Speedup",
    "issued_by_a_framework",
    "mu_speedups",
    "scenario",
    "speedup",
    "speedups",
    "vicuna",
]

FP16 = Precision(weight_bits=16, activation_bits=16, kv_bits=16, head_weight_bits=16)
SHAPES = {"7b": (32, 4096, 11008, 32), "13b": (40, 5120, 13824, 40), "33b": (60, 6656, 17920, 52)}
N_INPUT, N_OUTPUT = 100, 513  # tokens of a chat turn, assumed
DRAFT_LEN = 4  # tokens that a drafter for Mu drafts in a step
# fitted: Table 3, steps of all its cells (`table3.py`); of an operation as it is recorded here,
# for which a framework in Python issues several kernels
FRAMEWORK_US = 47.8


def vicuna(size: str) -> Description:
    """Describe a Vicuna (LLaMA) of 7, 13 or 33 billion parameters."""
    n_layers, d_model, d_ff, n_heads = SHAPES[size]
    return describe_fields(
        {"model_type": "llama", "num_hidden_layers": n_layers, "hidden_size": d_model,
         "intermediate_size": d_ff, "num_attention_heads": n_heads, "vocab_size": 32000},
        f"vicuna-{size}",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Speedup:
    """One published speed-up beside the simulated one."""

    what: str
    tokens_per_step: float  # given
    published: float
    simulated: float
    plain_ms: float  # a plain decode step
    step_ms: float  # draft and verify
    note: str


def scenario(
    description: Description,
    chip: Npu,
    drafter: Drafter,
    batch: int = 1,
    precision: Precision = FP16,
) -> Scenario:
    """Return the chat turn that is simulated.

    Args:
        description: the model.
        chip: the NPU or GPU.
        drafter: with its tokens per step; none of them decodes plainly.
        batch: requests computed together.
        precision: stored widths.

    Returns:
        What `evaluate` takes.
    """
    workload = Workload(n_input=N_INPUT, n_output=N_OUTPUT, batch=batch)
    return Scenario(
        description=description, npu=chip, precision=precision, workload=workload, drafter=drafter
    )


def speedup(
    description: Description, chip: Npu, drafter: Drafter, precision: Precision = FP16
) -> tuple[float, float, float]:
    """Simulate a request with and without a drafter.

    Args:
        description: the model.
        chip: the NPU or GPU.
        drafter: with its tokens per step.
        precision: stored widths.

    Returns:
        Speed-up of decoding, milliseconds of a plain step and of a drafting one.
    """
    plain, drafted = (
        evaluate(scenario(description, chip, d, precision=precision), "roofline")["tpot_ms"]
        for d in (Drafter(), drafter)
    )
    return plain / drafted, plain, drafted * drafter.tokens_per_step


def issued_by_a_framework(chip: Npu, us: float) -> Npu:
    """Return a GPU whose operations are issued one by one.

    Args:
        chip: as a compiled graph uses it.
        us: to issue an operation.

    Returns:
        The chip with that overhead.
    """
    return chip.with_value("per_op_overhead_cycles", round(us * chip.clock_hz / 1e6))


def speedups() -> list[Speedup]:
    """Simulate every speed-up that the paper and its TensorRT-LLM integration publish."""
    h100, m1, m2 = npu("h100"), npu("m1-max"), npu("m2-ultra")
    large = m2.with_value("dram.capacity_bytes", 192 * GB)  # the largest configuration
    tree = partial(Drafter, draft_len=4, packed_share=0.5)  # Figure 6: packing removes 30-60 %
    mlx = partial(Drafter, draft_len=3, packed_share=1.0)  # MLX verifies all beams unpacked
    wide = tree(beam_width=16, tokens_per_step=4.20)
    rows: list[tuple[str, str, Npu, Drafter, float, str]] = [
        ("H100, PyTorch, Vicuna 7B", "7b", issued_by_a_framework(h100, FRAMEWORK_US), wide, 2.8,
         f"beam width not published, 16 assumed; {FRAMEWORK_US:g} us per operation, of Table 3"),
        ("H100, one compiled graph, Vicuna 7B", "7b", h100, wide, 2.8,
         "the same without a framework between operations"),
        ("H100, TensorRT-LLM", "33b", h100,
         tree(beam_width=16, tokens_per_step=3.87), 2.7,
         "a production model of tens of billions, unknown; shape and tokens of Vicuna 33B"),
        ("M1 Max, MLX, 7B, beam width 1", "7b", m1,
         mlx(beam_width=1, tokens_per_step=2.15), 1.32, ""),
        ("M2 Ultra, MLX, 7B, beam width 3", "7b", m2,
         mlx(beam_width=3, tokens_per_step=2.44), 1.52, ""),
        ("M2 Ultra, MLX, 13B, beam width 2", "13b", large,
         mlx(beam_width=2, tokens_per_step=2.82), 1.94, ""),
        ("M2 Ultra, MLX, 33B, beam width 4", "33b", large,
         mlx(beam_width=4, tokens_per_step=2.56), 2.28,
         "published at 1.3 tok/s: memory was swapped, which is not simulated"),
    ]  # fmt: skip
    found = []
    for what, size, chip, drafter, published, note in rows:
        ratio, plain, step = speedup(vicuna(size), chip, drafter)
        found.append(
            Speedup(what=what, tokens_per_step=drafter.tokens_per_step, published=published,
                    simulated=ratio, plain_ms=plain, step_ms=step, note=note)
        )  # fmt: skip
    return found


def mu_speedups(tokens: dict[int, float]) -> list[dict[str, Any]]:
    """What ReDrafter would bring Mu on the 45-TOPS NPU.

    Args:
        tokens: per step for each beam width, measured with a drafter of Mu, or supposed.

    Returns:
        For each width: speed-up, and the tokens per step from which drafting pays.
    """
    mu, chip = describe(preset("mu-330m")), npu("hexagon-x-elite")
    rows = []
    for width, per_step in tokens.items():
        drafter = Drafter(
            beam_width=width, draft_len=DRAFT_LEN, tokens_per_step=per_step, n_layers=1
        )
        ratio, plain, step = speedup(mu, chip, drafter, Precision())
        rows.append(
            {"beam_width": width, "tokens_per_step": per_step, "speedup": ratio, "plain_ms": plain,
             "step_ms": step, "pays_from_tokens_per_step": step / plain}
        )  # fmt: skip
    return rows
