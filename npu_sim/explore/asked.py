"""What the page can ask: its controls, the scenario that they say, and the same as a command line.

A control is a field of a scenario; its text is read by what reads `--set`, so that the page and
`npu-sim run` accept and refuse the same. No control names a file. Chapter: `docs/whatif.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import floor
from types import MappingProxyType
from typing import Any

from mu_ref.border.overrides import plain_value
from mu_ref.border.ranges import Range
from mu_ref.border.text import short
from mu_ref.errors import MuRefError, check_choice
from mu_ref.presets import PRESETS
from npu_sim.errors import HardwareError, WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.precision import PRECISIONS, WIDTHS
from npu_sim.speculate.drafter import Drafter
from npu_sim.speculate.measured import Measured, shipped_drafts
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.scenario_toml import DEFAULT_NPU, base_scenario

__all__ = ["CONTROLS", "DEFAULTS", "Control", "blamed", "command_of", "passes", "scenario_of"]

Given = Mapping[str, str]  # {name of a control: its text}; what is blank is not given

LONGEST = 60  # characters of a text: no number and no name is longer
TOPS = Range(low=0, above=True, high=10**6, whole=False, why="no chip computes an exaop per second")


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """One thing that the page lets choose."""

    name: str  # in links and requests
    label: str
    path: str  # of a scenario; "" where it is no single field
    option: str = ""  # of `npu-sim run`; "": --set
    unit: str = ""  # of a bare number
    choices: tuple[str, ...] = ()  # () is a text
    hint: str = ""


def _width(name: str, label: str) -> Control:
    choices = tuple(map(str, WIDTHS[name]))
    option = f"--{name.replace('_', '-')}"
    return Control(name=name, label=label, path=f"precision.{name}", option=option, unit="bits",
                   choices=choices)  # fmt: skip


CONTROLS: Mapping[str, Control] = MappingProxyType({control.name: control for control in (
    Control(name="model", label="Model", path="model", choices=PRESETS),
    Control(name="npu", label="NPU", path="npu", option="--npu", choices=NPUS),
    _width("weight_bits", "Weights"),
    _width("activation_bits", "Activations"),
    _width("kv_bits", "Cached keys and values"),
    Control(name="input", label="Tokens read", path="workload.n_input", option="--input"),
    Control(name="output", label="Tokens written", path="workload.n_output", option="--output"),
    Control(name="context", label="Context", path="workload.context", option="--context",
            unit="slots", hint="Slots of a compiled graph; blank: exact lengths."),
    Control(name="tops", label="Compute", path="", unit="TOPS",
            hint="Peak of int8; other widths in proportion, at the same clock."),
    Control(name="bandwidth", label="Bandwidth", path="npu.dma.bytes_per_s", unit="GB/s",
            hint="Of the NPU's own port to DRAM."),
    Control(name="sram", label="SRAM", path="npu.sram.capacity_bytes", unit="MiB"),
    Control(name="beams", label="Beams", path="drafter.beam_width",
            hint="0: no drafter."),
    Control(name="draft_len", label="Draft length", path="drafter.draft_len", unit="tokens"),
    Control(name="kept", label="Kept per step", path="drafter.tokens_per_step", unit="tokens",
            hint="Blank: as measured of mu-nano's drafter."),
)})  # fmt: skip

DEFAULTS: Given = MappingProxyType({
    "model": "mu-330m", "npu": DEFAULT_NPU, "weight_bits": "8", "activation_bits": "16",
    "kv_bits": "16", "input": "64", "output": "32", "beams": "0", "draft_len": "4",
})  # fmt: skip


def scenario_of(given: Given) -> Scenario:
    """Return what the controls say.

        >>> from npu_sim.explore.asked import scenario_of
        >>> scenario_of({"model": "tiny", "npu": "teaching-npu", "sram": "2"}).npu.name
        'teaching-npu, sram.capacity_bytes = 2 MiB'

    Args:
        given: texts of controls; model and NPU at least.

    Returns:
        The scenario.

    Raises:
        MuRefError: no such control, or a text that is not allowed.
    """
    _check(given)
    changes: dict[str, str] = {}
    for control, text in _numbers(given):
        changes |= {control.path: _with_unit(text, control)} if control.path else {}
    changes |= _rates(given) | _measured(given)
    return base_scenario({"model": given["model"], "npu": given["npu"], "set": changes})


def command_of(given: Given) -> list[str]:
    """Return the words of the `npu-sim run` that asks the same.

        >>> from npu_sim.explore.asked import command_of
        >>> command_of({"model": "tiny", "npu": "h100", "input": "9", "bandwidth": "100"})[3:]
        ['--npu', 'h100', '--input', '9', '--set', 'npu.dma.bytes_per_s=100 GB/s']

    Args:
        given: what `scenario_of` has taken.

    Returns:
        Words, not yet quoted for a shell.
    """
    words = ["npu-sim", "run", given["model"], "--npu", given["npu"]]
    changes: dict[str, str] = {}
    for control, text in _numbers(given):
        if control.option:
            words += [control.option, text]
        elif control.path:
            changes[control.path] = _with_unit(text, control)
    changes |= _rates(given) | _measured(given)
    for path, value in changes.items():
        words += ["--set", f"{path}={value}"]
    return words


def blamed(given: Given, ask: Callable[[Given], object]) -> str:
    """Return the control beside which an error of `ask(given)` is shown.

    Of those that say something else than the page begins with: the one that is wrong by itself;
    else the last without which the others are right.

    Args:
        given: was refused.
        ask: raises `MuRefError` where something is refused.

    Returns:
        The name of a control.
    """
    for name in ("model", "npu"):
        if given.get(name) not in CONTROLS[name].choices:
            return name
    chosen = {name: given[name] for name in ("model", "npu")}
    rest = [name for name, text in given.items()
            if name not in chosen and text.strip() not in ("", DEFAULTS.get(name))]  # fmt: skip
    if not passes(chosen, ask):
        return "npu"
    alone = (name for name in rest if not passes({**chosen, name: given[name]}, ask))
    without = (
        name
        for name in reversed(rest)
        if passes({other: text for other, text in given.items() if other != name}, ask)
    )
    return next(alone, None) or next(without, "npu")


def passes(given: Given, ask: Callable[[Given], object]) -> bool:
    """Return whether `ask(given)` refuses nothing."""
    try:
        ask(given)
    except MuRefError:
        return False
    return True


def _check(given: Given) -> None:
    """Refuse what no control is, no text, or no name of a preset: a file may have any other."""
    for name, text in given.items():
        control = CONTROLS[check_choice("control", name, CONTROLS, WorkloadError)]
        if not isinstance(text, str) or len(text) > LONGEST:
            raise WorkloadError(
                f"{control.label.lower()} must be a text of at most {LONGEST} characters, got "
                f"{short(text)}"
            )
    for name in ("model", "npu"):
        check_choice(name, given.get(name), CONTROLS[name].choices, WorkloadError)


def _numbers(given: Given) -> list[tuple[Control, str]]:
    """What is given of the controls behind model and NPU, without that of a drafter not there."""
    drafts = _beams(given) != 0
    found = []
    for name, text in given.items():
        control = CONTROLS[name]
        if name in ("model", "npu") or not text.strip():
            continue
        if drafts or not control.path.startswith("drafter."):
            found.append((control, text.strip()))
    return found


def _with_unit(text: str, control: Control) -> str:
    """A bare number of an NPU with its unit; what a person gave one stays."""
    bare = control.path.startswith("npu.") and not isinstance(plain_value(text), str)
    return f"{text} {control.unit}" if bare else text


def _rates(given: Given) -> dict[str, str]:
    """What more or fewer multipliers at the same clock are: every rate in proportion."""
    text = given.get("tops", "").strip()
    if not text:
        return {}
    chip = npu(given["npu"])
    times = TOPS.check("tops", plain_value(text), HardwareError) / chip.int8_tops
    rates = {f"matrix.{name}_macs_per_cycle": _rate(chip, name, times) for name in PRECISIONS}
    return {f"npu.{path}": str(rate) for path, rate in rates.items() if rate}


def _rate(chip: Npu, name: str, times: float) -> int:
    rate: int = getattr(chip.matrix, f"{name}_macs_per_cycle")
    return max(1, round(rate * times)) if rate else 0  # 0: no engine multiplies these widths


def _beams(given: Given) -> Any:
    """How many, or a text that is no number, which the scenario refuses."""
    return plain_value(given.get("beams", "").strip() or "0")


def _measured(given: Given) -> dict[str, str]:
    """What steps keep of such beams where the user says nothing of it."""
    if given.get("kept", "").strip():
        return {}
    width = _beams(given)
    length = plain_value(given.get("draft_len", "").strip() or str(Drafter().draft_len))
    right = isinstance(width, int) and isinstance(length, int) and length > 0
    if not right or width <= 0:  # no drafter, or one that the scenario refuses
        return {}
    table = _shipped()
    if (width, length) not in table.kept:
        widths, lengths = (sorted({pair[i] for pair in table.kept}) for i in range(2))
        raise WorkloadError(
            f"tokens kept per step must be given where they are not measured (widths "
            f"{', '.join(map(str, widths))}; lengths {', '.join(map(str, lengths))}), got "
            f"{width} beams of {length} tokens"
        )
    nodes = table.nodes(width, length)
    kept = table.acceptance(width, length, nodes).tokens_per_step
    # rounded down: the nodes are that share, rounded up
    share = floor(1e6 * (nodes - 1) / (width * length)) / 1e6
    return {"drafter.tokens_per_step": f"{kept:.6g}", "drafter.packed_share": f"{share:.6f}"}


@cache
def _shipped() -> Measured:
    return shipped_drafts()
