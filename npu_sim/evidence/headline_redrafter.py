"""ReDrafter's published speed-ups, simulated from the published tokens per step.

Tokens per step are an input: they depend on training data, which no simulator knows. What is
simulated is the time of a step, drafting included, against plain decoding (`roofline` fidelity).
Chapter: `docs/headline.md`. Source of the figures: arXiv:2403.09919v5, Tables 1 to 4.
"""

from dataclasses import dataclass
from functools import partial
from math import log2
from typing import Any

from mu_ref.presets import preset
from npu_sim.errors import CapacityError
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
    "Cell",
    "Speedup",
    "mu_speedups",
    "speedup",
    "speedups",
    "table3",
    "tokens_per_step",
    "vicuna",
]

FP16 = Precision(weight_bits=16, activation_bits=16, kv_bits=16, head_weight_bits=16)
SHAPES = {"7b": (32, 4096, 11008, 32), "13b": (40, 5120, 13824, 40), "33b": (60, 6656, 17920, 52)}
N_INPUT, N_OUTPUT = 100, 513  # tokens of a chat turn, assumed
DRAFT_LEN = 4  # tokens that a drafter for Mu drafts in a step
EAGER_US = 10.0  # assumed: a framework in Python issues an operation in about 10 us
BATCHES = (1, 2, 4, 8, 10, 20, 40, 80)
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
# Table 4, with distillation: beam width -> tokens per step; in between by the logarithm
TOKENS_PER_STEP = {1: 2.35, 2: 2.50, 4: 2.73, 16: 3.09, 64: 3.58}
TABLE3 = {
    1: (62.55, 73.32, 80.47, 88.31, 100.16, 104.51, 110.64),
    2: (58.56, 70.25, 75.77, 86.64, 99.45, 107.52, 111.42),
    4: (57.51, 67.42, 74.77, 81.95, 97.13, 99.11, 85.23),
    8: (53.14, 60.48, 69.49, 81.14, 83.44, 73.41, 54.19),
    10: (53.61, 58.79, 66.29, 71.55, 73.57, 65.31, 44.23),
    20: (45.16, 49.05, 57.35, 53.87, 48.76, 35.66, 23.28),
    40: (32.69, 33.59, 36.68, 34.33, 26.43, 19.15, 12.09),
    80: (18.94, 20.45, 19.65, None, None, None, None),
}  # fmt: skip


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


def _scenario(
    description: Description,
    chip: Npu,
    drafter: Drafter,
    batch: int = 1,
    precision: Precision = FP16,
) -> Scenario:
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
        evaluate(_scenario(description, chip, d, precision=precision), "roofline")["tpot_ms"]
        for d in (Drafter(), drafter)
    )
    return plain / drafted, plain, drafted * drafter.tokens_per_step


def _issued_by_a_framework(chip: Npu) -> Npu:
    cycles = round(EAGER_US * chip.clock_hz / 1e6)
    return chip.with_value("per_op_overhead_cycles", cycles)


def speedups() -> list[Speedup]:
    """Simulate every speed-up that the paper and its TensorRT-LLM integration publish."""
    h100, m1, m2 = npu("h100"), npu("m1-max"), npu("m2-ultra")
    large = m2.with_value("dram.capacity_bytes", 192 * GB)  # the largest configuration
    tree = partial(Drafter, draft_len=4, packed_share=0.5)  # Figure 6: packing removes 30-60 %
    mlx = partial(Drafter, draft_len=3, packed_share=1.0)  # MLX verifies all beams unpacked
    wide = tree(beam_width=16, tokens_per_step=4.20)
    rows: list[tuple[str, str, Npu, Drafter, float, str]] = [
        ("H100, PyTorch, Vicuna 7B", "7b", _issued_by_a_framework(h100), wide, 2.8,
         "beam width not published, 16 assumed; 10 us per operation assumed"),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One batch size and beam width of Table 3: tokens per second of one request."""

    batch: int
    beam_width: int
    published: float | None  # None: out of memory
    simulated: float | None


def table3() -> list[Cell]:
    """Simulate Table 3: Vicuna 7B on H100, PyTorch, over batch sizes and beam widths."""
    vicuna_7b, chip = vicuna("7b"), _issued_by_a_framework(npu("h100"))
    cells = []
    for batch in BATCHES:
        for width, published in zip(WIDTHS, TABLE3[batch], strict=True):
            drafter = Drafter(
                beam_width=width, draft_len=4, tokens_per_step=tokens_per_step(width),
                # one beam shares nothing with itself, few beams share less than many
                packed_share=1.0 if width == 1 else 0.75 if width < 5 else 0.5,
            )  # fmt: skip
            try:
                scenario = _scenario(vicuna_7b, chip, drafter, batch)
                simulated = evaluate(scenario, "roofline")["decode_tok_per_s"]
            except CapacityError:
                simulated = None
            cells.append(
                Cell(batch=batch, beam_width=width, published=published, simulated=simulated)
            )
    return cells


def tokens_per_step(width: int) -> float:
    """Read Table 4 of the paper, between its widths by the logarithm.

    Args:
        width: beam width, 1 to 64.

    Returns:
        Tokens per step, with distillation.
    """
    below = max(w for w in TOKENS_PER_STEP if w <= width)
    above = min(w for w in TOKENS_PER_STEP if w >= width)
    if above == below:
        return TOKENS_PER_STEP[below]
    share = log2(width / below) / log2(above / below)
    return TOKENS_PER_STEP[below] + share * (TOKENS_PER_STEP[above] - TOKENS_PER_STEP[below])


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
