"""One what-if: model, NPU, precision, workload and drafter, and any of their fields by its path.

Paths look like `npu.dma.bytes_per_s`, `model.decoder.n_layers`, `precision.weight_bits`,
`workload.n_input`, `drafter.beam_width`. Sweeps, sensitivities, comparisons and searches all change
scenarios through `Scenario.with_fields`. Chapter: `docs/whatif.md`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self

from mu_ref.border.ranges import LAYERS, SIZE, TOKENS, Range, check_fields
from mu_ref.config import StackConfig
from mu_ref.errors import MuRefError, check_choice
from npu_sim.errors import NpuSimError, WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.description import HEADS, Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import RUNTIMES
from npu_sim.speculate.drafter import Drafter

__all__ = ["ALIASES", "Scenario", "Workload", "full_path"]


ALIASES: Mapping[str, str] = MappingProxyType({
    "dma_bandwidth": "npu.dma.bytes_per_s", "dram_bandwidth": "npu.dram.bytes_per_s",
    "clock": "npu.clock_hz", "sram": "npu.sram.capacity_bytes",
    "op_overhead": "npu.per_op_overhead_cycles", "call_overhead": "npu.per_inference_overhead_us",
    "n_input": "workload.n_input", "n_output": "workload.n_output", "batch": "workload.batch",
    "weight_bits": "precision.weight_bits", "kv_bits": "precision.kv_bits",
})  # fmt: skip


BATCH = Range(low=1, high=2**16, why="every request of a batch is a row of every product")
LENGTHS: Mapping[str, Range] = MappingProxyType(
    {"n_input": TOKENS, "n_output": TOKENS, "batch": BATCH}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What is asked of the model.

    Raises:
        WorkloadError: a length below 1 or beyond every model, or an unknown runtime.
    """

    n_input: int = 64  # tokens read
    n_output: int = 32  # tokens written
    batch: int = 1  # requests computed together
    static_context: int | None = None  # slots of a compiled graph; None: exact lengths
    runtime: str = "native"  # who calls the graph

    def __post_init__(self) -> None:
        """Check the lengths."""
        for name, allowed in LENGTHS.items():
            allowed.check(f"workload.{name}", getattr(self, name), WorkloadError)
        check_fields(self, {"static_context": TOKENS}, WorkloadError, "workload.")
        check_choice("workload.runtime", self.runtime, RUNTIMES, WorkloadError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything that a simulated request depends on.

    >>> import npu_sim
    >>> now = npu_sim.base_scenario({"model": "mu-nano", "npu": "teaching-npu"})
    >>> twice = now.with_fields({"npu.dma.bytes_per_s": 2 * now.npu.dma.bytes_per_s})
    >>> npu_sim.evaluate(twice)["latency_ms"] < npu_sim.evaluate(now)["latency_ms"]
    True
    """

    description: Description  # of the model; its fields have paths "model.*"
    npu: Npu
    precision: Precision
    workload: Workload
    drafter: Drafter

    def paths(self) -> dict[str, Any]:
        """List every field that can be varied, with its value."""
        found = {f"npu.{path}": value for path, value in self.npu.values().items()}
        for stack_name, stack in self.description.model.stacks.items():
            for name in MODEL_FIELDS:
                found[f"model.{stack_name}.{name}"] = getattr(stack, name)
        found["model.vocab_size"] = self.description.model.vocab_size
        found["model.lm_head"] = self.description.lm_head
        found |= {f"precision.{name}": bits for name, bits in self.precision.widths().items()}
        for part in ("workload", "drafter"):
            found |= {f"{part}.{k}": v for k, v in asdict(getattr(self, part)).items()}
        return found

    def with_fields(self, changes: Mapping[str, Any]) -> Self:
        """Return the scenario with some fields changed.

        Args:
            changes: {path: value}; see `paths`.

        Returns:
            The changed scenario.

        Raises:
            NpuSimError: an unknown path or a value that is not allowed; names the path.
        """
        known = self.paths()
        parts: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            check_choice("field", path, known, WorkloadError)
            part, _, name = path.partition(".")
            parts.setdefault(part, {})[name] = value
        try:
            return replace(
                self,
                npu=self.npu.with_changes(parts["npu"]) if "npu" in parts else self.npu,
                description=_with_model(self.description, parts.get("model", {})),
                precision=replace(self.precision, **parts.get("precision", {})),
                workload=replace(self.workload, **parts.get("workload", {})),
                drafter=replace(self.drafter, **parts.get("drafter", {})),
            )
        except NpuSimError:
            raise
        except (MuRefError, TypeError, ValueError, ArithmeticError) as error:
            raise WorkloadError(f"{', '.join(changes)} must fit together: {error}") from error


MODEL_FIELDS = ("n_layers", "d_model", "d_ff", "n_heads", "n_kv_heads", "d_head", "gated")


def _with_model(description: Description, changes: Mapping[str, Any]) -> Description:
    if not changes:
        return description
    model, more = description.model, {}
    for path, value in changes.items():
        part, _, name = path.partition(".")  # "decoder.n_layers", or "vocab_size" alone
        if not name:
            more[part] = value
            continue
        more[part] = _with_stack(more.get(part) or model.stacks[part], name, value)
    if "vocab_size" in more:
        SIZE.check("vocab_size", more["vocab_size"], WorkloadError)
    if "vocab_size" in more and model.shared_embedding:
        more["encoder_vocab_size"] = more["vocab_size"]
    head = check_choice(
        "model.lm_head", more.pop("lm_head", description.lm_head), HEADS, WorkloadError
    )
    names = {field.name for field in fields(model)}
    model = replace(model, **{k: v for k, v in more.items() if k in names})
    return replace(description, model=model, lm_head=head)


def _with_stack(stack: StackConfig, name: str, value: Any) -> StackConfig:
    if name == "gated":
        if not isinstance(value, bool):
            raise WorkloadError(f"gated must be true or false, got {value!r}")
    else:
        (LAYERS if name == "n_layers" else SIZE).check(name, value, WorkloadError)
    if name == "n_layers":
        windowed = (stack.windowed_layers * value)[:value]
        return replace(stack, n_layers=value, windowed_layers=windowed)
    return replace(stack, **{name: value})


def full_path(name: str, scenario: Scenario) -> str:
    """Complete a short name of a field.

    Args:
        name: a path, an alias such as "dma_bandwidth", or a path of the NPU without "npu.".
        scenario: whose fields there are.

    Returns:
        The path.

    Raises:
        WorkloadError: no such field; lists those that exist.
    """
    known = scenario.paths()
    for path in (name, ALIASES.get(name, name), f"npu.{name}"):
        if path in known:
            return path
    check_choice("field", name, [*ALIASES, *known], WorkloadError)
    raise AssertionError  # check_choice has raised
