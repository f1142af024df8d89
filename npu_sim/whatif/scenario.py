"""One what-if: model, NPU, precision, workload and drafter, and any of their fields by its path.

Paths look like `npu.dma.bytes_per_s`, `model.decoder.n_layers`, `precision.weight_bits`,
`workload.n_input`, `drafter.beam_width`; `npu` alone is another NPU, by its name. Sweeps,
sensitivities, comparisons and searches all change scenarios through `Scenario.with_fields`.
Chapter: `docs/whatif.md`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self

from mu_ref.border.overrides import kind_of_field
from mu_ref.border.ranges import TOKENS, Range, check_fields, check_kinds
from mu_ref.config import model_fields, with_model_fields
from mu_ref.errors import MuRefError, check_choice
from npu_sim.errors import NpuSimError, WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.hardware.units import npu_value, with_unit
from npu_sim.program.description import Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import RUNTIMES
from npu_sim.report.fidelity import BUDGET, BUDGET_MS
from npu_sim.speculate.drafter import Drafter

__all__ = ["ALIASES", "BATCH", "Scenario", "Workload", "field_value", "full_path", "with_set"]


ALIASES: Mapping[str, str] = MappingProxyType({
    "dma_bandwidth": "npu.dma.bytes_per_s", "dram_bandwidth": "npu.dram.bytes_per_s",
    "clock": "npu.clock_hz", "sram": "npu.sram.capacity_bytes",
    "op_overhead": "npu.per_op_overhead_cycles", "call_overhead": "npu.per_inference_overhead_us",
    "n_input": "workload.n_input", "n_output": "workload.n_output", "batch": "workload.batch",
    "input": "workload.n_input", "output": "workload.n_output", "context": "workload.context",
    "filled": "workload.filled",
    "runtime": "workload.runtime", "weight_bits": "precision.weight_bits",
    "activation_bits": "precision.activation_bits", "kv_bits": "precision.kv_bits",
    "head_weight_bits": "precision.head_weight_bits",
    "workload.static_context": "workload.context",  # its name until version 0.3
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
    context: int | None = None  # slots of a compiled graph; None: exact lengths
    filled: int | None = None  # of them hold tokens in a decode step; None: those of the request
    runtime: str = "native"  # who calls the graph
    budget_ms: float = BUDGET_MS  # latency that the request must keep

    def __post_init__(self) -> None:
        """Check the lengths."""
        for name, allowed in LENGTHS.items():
            allowed.check(f"workload.{name}", getattr(self, name), WorkloadError)
        known = {"context": TOKENS, "filled": TOKENS, "budget_ms": BUDGET}
        check_fields(self, known, WorkloadError, "workload.")
        if self.filled is not None and self.filled > (self.context or 0):
            raise WorkloadError(
                f"workload.filled must be at most workload.context, got {self.filled} and "
                f"{self.context}; give a context of that many slots"
            )
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
        found |= {f"model.{path}": v for path, v in model_fields(self.description.model).items()}
        found |= {f"model.{path}": v for path, v in _described(self.description).items()}
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
        chip = self.npu
        for given, value in changes.items():
            path = given if given in known else ALIASES.get(given, given)
            if path == "npu":
                chip = npu(value)
                continue
            check_choice("field", path, known, WorkloadError)
            part, _, name = path.partition(".")
            parts.setdefault(part, {})[name] = value
        try:
            return replace(
                self,
                npu=chip.with_changes(parts["npu"]) if "npu" in parts else chip,
                description=_with_model(self.description, parts.get("model", {})),
                precision=replace(self.precision, **parts.get("precision", {})),
                workload=replace(self.workload, **parts.get("workload", {})),
                drafter=replace(self.drafter, **parts.get("drafter", {})),
            )
        except NpuSimError:
            raise
        except (MuRefError, TypeError, ValueError, ArithmeticError) as error:
            raise WorkloadError(f"{', '.join(changes)} must fit together: {error}") from error


def _described(description: Description) -> dict[str, Any]:
    """What a description says beside its model, where a word or a number says it."""
    values = {field.name: getattr(description, field.name) for field in fields(description)}
    return {name: value for name, value in values.items()
            if name != "name" and isinstance(value, bool | int | float | str | None)}  # fmt: skip


def _with_model(description: Description, changes: Mapping[str, Any]) -> Description:
    if not changes:
        return description
    own = {name: value for name, value in changes.items() if name in _described(description)}
    of_model = {path: value for path, value in changes.items() if path not in own}
    changed = replace(description, **own)
    check_kinds(changed, WorkloadError, "model.")
    return replace(changed, model=with_model_fields(changed.model, of_model, WorkloadError))


def field_value(path: str, value: Any, scenario: Scenario) -> Any:
    """Return what a person wrote for a field as what it means: with a unit, as a word, or as it is.

    Args:
        path: from `full_path`.
        value: a number, a text, or a table of value and unit.
        scenario: what kind of value there is now.

    Returns:
        The value; whether it is allowed is checked where it is used.

    Raises:
        NpuSimError: a unit that does not fit.
    """
    if path.startswith("npu."):
        return npu_value(path.removeprefix("npu."), value, path)
    if path == "npu":
        return value
    return kind_of_field(value, scenario.paths()[path])


def with_set(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """Return a scenario with fields set; the names of NPU and model say what was.

    Args:
        scenario: the base.
        changes: {name: value} as a person wrote them.

    Returns:
        The changed scenario.

    Raises:
        NpuSimError: an unknown field, or a value that is not allowed; names the field.
    """
    paths = {name: full_path(name, scenario) for name in changes}
    values = {paths[name]: field_value(paths[name], v, scenario) for name, v in changes.items()}
    found = scenario.with_fields(values)
    said: dict[str, str] = {"npu": "", "model": ""}
    for path, value in values.items():
        part, _, name = path.partition(".")
        if part in said and name:
            shown = with_unit(name, value) if part == "npu" else str(value).lower()
            said[part] += f", {name} = {shown}"
    model = found.description.model
    return replace(
        found,
        npu=replace(found.npu, name=found.npu.name + said["npu"]),
        description=replace(
            found.description, model=replace(model, name=model.name + said["model"])
        ),
    )


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
    known = {"npu", *scenario.paths()}
    for path in (name, ALIASES.get(name, name), f"npu.{name}", f"model.{name}"):
        if path in known:
            return path
    check_choice("field", name, [*ALIASES, *known], WorkloadError)
    raise AssertionError  # check_choice has raised
