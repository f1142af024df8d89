"""What each effect of the simulator is worth: the fit of `calibrate.py` with one thing otherwise.

An effect that explains measurements makes the error with a network left out smaller; one that only
adds freedom does not. Each alternative is fitted anew, with all constants, before it is judged. Not
here: the constants themselves. Chapter: `docs/validation.md`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npu_sim.evidence.calibrate import CONSTANTS, Calibration, fit_recorded, recorded
from npu_sim.evidence.cases import Case
from npu_sim.evidence.fit import Constant
from npu_sim.hardware.chip import FieldValue, Npu
from npu_sim.program.description import Description

__all__ = ["ALTERNATIVES", "Alternative", "Judged", "judge_structure"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """Another structure: values of a chip, or paths of others whose values they take."""

    name: str
    meaning: str
    values: Mapping[str, FieldValue]
    held: tuple[str, ...] = ()  # constants that are not fitted: they keep their priors

    def of(self, chip: Npu) -> Npu:
        """Return the chip with these values."""
        own = chip.values()
        values = {
            path: own[value] if isinstance(value, str) else value
            for path, value in self.values.items()
        }
        return chip.with_changes(values)

    def constants(self) -> tuple[Constant, ...]:
        """Return the constants of a fit: those that are held have no room."""
        return tuple(
            replace(c, low=c.prior, high=c.prior) if c.name in self.held else c for c in CONSTANTS
        )


def _other(
    name: str, meaning: str, held: tuple[str, ...] = (), **values: FieldValue
) -> Alternative:
    paths = {path.replace("__", "."): value for path, value in values.items()}
    return Alternative(name=name, meaning=meaning, values=paths, held=held)


ALTERNATIVES: tuple[Alternative, ...] = (
    _other("as it is", "every effect of the simulator"),
    _other("no host work", "an LLM runtime adds nothing to a call",
           geniex_overhead_us=0.0, geniex_position_us=0.0),
    _other("full slots", "an empty slot of a padded cache costs as much as a full one",
           dma__empty_slot_share=1.0),
    _other("caches as they lie", "keys and values need no layout", dma__cache_bytes_per_s=0),
    _other("results as they lie", "results of products need no layout",
           matrix__output_elements_per_s=0),
    _other("one after another", "encoding too, an operation waits for the whole one before",
           sram__streams_encode=False),
    _other("single rows", "vectors and layouts on the rows there are, not on whole tiles",
           sram__tile_rows=1, sram__block_rows=1),
    _other("tiles of 64", "a single row is a tile of 64 rows, not of 32", sram__tile_rows=64),
    _other("floats at once", "the vector engine need not widen 16-bit floats",
           vector__float_efficiency="vector.efficiency"),
    _other("one rate of floats", "newer generations multiply 16-bit floats no faster than all else",
           held=("float16_newer",)),
    _other("not fused", "scores of attention and results between operations go through DRAM",
           sram__fuses_operations=False),
    _other("running ahead", "weights of later operations are fetched at any time",
           dma__runs_ahead=True),
    _other("long pieces", "memory is read in pieces of 256 KiB, not of 64",
           dma__transfer_bytes=2**18),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One alternative with its own fit."""

    alternative: Alternative
    found: Calibration

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers; errors are fractions, mean absolute."""
        data = self.found.to_json()
        return {
            "name": self.alternative.name,
            "meaning": self.alternative.meaning,
            "values": dict(self.alternative.values),
            "held": list(self.alternative.held),
            **{key: data[key] for key in ("n", "fit_mape", "left_out_mape", "left_out_by_phase")},
        }


def judge_structure(
    cases: Sequence[Case],
    models: Mapping[str, Description],
    *,
    by: str = "model",
    alternatives: Sequence[Alternative] = ALTERNATIVES,
    progress: Callable[[], None] | None = None,
) -> list[Judged]:
    """Fit the constants under each structure.

    Args:
        cases: measured calls on X Elite and X2 Elite.
        models: descriptions by name.
        by: what is left out together: "case" or "model".
        alternatives: the structures; the fit of the first is where the others begin.
        progress: called behind each fit.

    Returns:
        Each with its fit, in order.

    Raises:
        NpuSimError: a case cannot be simulated, or the cases are of several releases.
    """
    tables = recorded(cases, models)
    judged: list[Judged] = []
    for alternative in alternatives:
        start = judged[0].found.fit.values if judged else None
        found = fit_recorded(
            tables, by=by, constants=alternative.constants(), structure=alternative.of, start=start
        )
        judged.append(Judged(alternative=alternative, found=found))
        if progress is not None:
            progress()
    return judged
