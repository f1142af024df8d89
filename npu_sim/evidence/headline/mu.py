"""Mu's published speed, and the encoder-decoder against its decoder-only twin, simulated.

Chapter: `docs/headline.md`. No published figure enters a constant of the simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mu_ref.presets import preset
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.call import call_program
from npu_sim.program.description import Description, describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Op
from npu_sim.program.rows import program_table
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import CallRun, simulate_tiles
from npu_sim.units import ms_from_cycles

__all__ = ["CAUSES", "LENGTHS", "Twin", "call_causes", "mu_times", "twins"]

MU, TWIN, NPU = "mu-330m", "decoder-only-330m", "hexagon-x-elite"
LENGTHS = (64, 128, 256, 512, 1024, 2048)
STATIC = 2048  # slots of a padded graph
N_WRITTEN = 16  # tokens written before the step that is looked at
CAUSES = ("layers", "attention", "vector", "head", "op overhead", "call overhead")
W8A16 = Precision()
Costs = dict[str, float]  # cause -> ms


def call_causes(
    description: Description, phase: str, lengths: tuple[int, int, int], chip: Npu
) -> Costs:  # fmt: skip
    """Divide the time of one call among its causes.

    Args:
        description: the model.
        phase: of the call.
        lengths: tokens computed, slots of self-attention, slots of cross-attention.
        chip: the NPU.

    Returns:
        {cause: ms}, together the call at `tile` fidelity: weights and products of layers; attention
        with its cached keys and values; norms, activations and sums; the head over the vocabulary;
        overheads of operations and of the call.
    """
    program = call_program(description, phase, *lengths, W8A16)
    run = simulate_tiles(program_table(program), chip).calls[0]
    return _causes(run, chip)


def _causes(run: CallRun, chip: Npu) -> Costs:
    costs = dict.fromkeys(CAUSES, 0.0)
    costs["call overhead"] = ms_from_cycles(run.overhead_cycles, chip.clock_hz)
    for op, limits in zip(run.table.ops, row_limits(run).tolist(), strict=True):
        # time of engines belongs to what the operation is for; its start is a cause of its own
        *engines, overhead = limits
        costs[_cause(op)] += ms_from_cycles(sum(engines), chip.clock_hz)
        costs["op overhead"] += ms_from_cycles(overhead, chip.clock_hz)
    return costs


def _cause(op: Op) -> str:
    if op.site.startswith("head"):
        return "head"
    if op.kind == "linear":
        return "layers"
    # scores are scaled, capped and weighted between the two products of attention
    attention = ".scale" in op.site or op.kind in ("matmul", "softmax", "append", "softcap")
    return "attention" if attention else "vector"


def mu_times(n_input: int = 64, n_output: int = 32, chip: Npu | None = None) -> Mapping[str, float]:
    """Simulate a Settings query.

    Args:
        n_input: tokens read: prompt and query.
        n_output: tokens written: a call such as `set(display.brightness, 40)`.
        chip: X Elite by default.

    Returns:
        {"first_token_ms", "total_ms", "tok_per_s"}.
    """
    chip = chip or npu(NPU)
    mu = describe(preset(MU))
    encode = sum(call_causes(mu, "encode", (n_input, n_input, 0), chip).values())
    first, last = (
        sum(call_causes(mu, "decode", (1, n, n_input), chip).values()) for n in (1, n_output)
    )
    step = (first + last) / 2  # a step grows evenly with its context
    return {
        "first_token_ms": encode + first,
        "total_ms": encode + n_output * step,
        "tok_per_s": 1000 / step,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """Both models at one input length; ratios as they are published: more is better, and less."""

    n_input: int
    mu_first: Costs  # encode and the first decode step
    mu_step: Costs
    twin_first: Costs  # prefill, head on the last position
    twin_step: Costs
    twin_head_all_ms: float  # more, if the head scores every position of the prompt
    static_ms: Mapping[str, float]  # the same four calls, padded to `STATIC` slots

    @property
    def decode_ratio_last(self) -> float:
        """Decode speed, encoder-decoder over decoder-only."""
        return _total(self.twin_step) / _total(self.mu_step)

    @property
    def decode_ratio_static(self) -> float:
        """The same with padded graphs."""
        return self.static_ms["twin_step"] / self.static_ms["mu_step"]

    @property
    def first_token_ratio_last(self) -> float:
        """First token, encoder-decoder over decoder-only."""
        return _total(self.mu_first) / _total(self.twin_first)

    @property
    def first_token_ratio_all(self) -> float:
        """The same where the prefill computes logits of every position."""
        return _total(self.mu_first) / (_total(self.twin_first) + self.twin_head_all_ms)

    @property
    def first_token_ratio_static(self) -> float:
        """The same with padded graphs, logits of every position."""
        return self.static_ms["mu_first"] / self.static_ms["twin_first"]


def _total(costs: Costs) -> float:
    return sum(costs.values())


def _sum(a: Costs, b: Costs) -> Costs:
    return {cause: a[cause] + b[cause] for cause in CAUSES}


def twins(lengths: tuple[int, ...] = LENGTHS, chip: Npu | None = None) -> list[Twin]:
    """Simulate both models over input lengths.

    Args:
        lengths: input tokens.
        chip: X Elite by default.

    Returns:
        A pair for each length.
    """
    chip = chip or npu(NPU)
    mu, twin = describe(preset(MU)), describe(preset(TWIN))
    every = replace(twin, lm_head="all")

    def total(description: Description, phase: str, *sizes: int) -> float:
        n, context, memory = sizes
        return _total(call_causes(description, phase, (n, context, memory), chip))

    static = {
        "mu_first": total(mu, "encode", STATIC, STATIC, 0) + total(mu, "decode", 1, STATIC, STATIC),
        "mu_step": total(mu, "decode", 1, STATIC, STATIC),
        "twin_first": total(every, "prefill", STATIC, STATIC, 0),
        "twin_step": total(twin, "decode", 1, STATIC, 0),
    }
    found = []
    for n in lengths:
        prefill = call_causes(twin, "prefill", (n, n, 0), chip)
        encode = call_causes(mu, "encode", (n, n, 0), chip)
        found.append(
            Twin(
                n_input=n,
                mu_first=_sum(encode, call_causes(mu, "decode", (1, 1, n), chip)),
                mu_step=call_causes(mu, "decode", (1, N_WRITTEN, n), chip),
                twin_first=prefill,
                twin_step=call_causes(twin, "decode", (1, n + N_WRITTEN, 0), chip),
                twin_head_all_ms=total(every, "prefill", n, n, 0) - _total(prefill),
                static_ms=static,
            )
        )
    return found
