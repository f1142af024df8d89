"""Options that several commands of `mu-ref` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_ref.border.ranges import BEAMS, DRAFTED
from mu_ref.command_line import in_range
from mu_ref.errors import InputError

if TYPE_CHECKING:
    from mu_ref.settings.agent import Agent

__all__ = [
    "DrafterOption", "ExecutorOption", "LengthOption", "SchemeOption", "WeightsOption",
    "WidthOption", "check_named", "drafting", "load_named",
]  # fmt: skip


WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weight file from `mu-ref train`; the shipped one by default."),
]

ExecutorOption = Annotated[
    str, typer.Option(help="reference (NumPy) or fast (compiled kernels, the same answers).")
]

SchemeOption = Annotated[str, typer.Option(help="Arithmetic: float32, w8a16, w8a8 or w4a16.")]

DrafterOption = Annotated[
    str | None,
    typer.Option("--drafter", help="Draft with this file, or with the one that ships: shipped."),
]

WidthOption = Annotated[int, in_range(BEAMS, "--beam-width", help="Beams that are drafted.")]

LengthOption = Annotated[int, in_range(DRAFTED, "--draft-len", help="Drafted tokens of a beam.")]


def check_named(name: str, weights: Path | None) -> None:
    """Refuse a preset that ships without weights, unless some are given."""
    from mu_ref.presets import preset

    if preset(name).name != "mu-nano" and weights is None:
        raise InputError(f"{name} must be given --weights; only mu-nano ships trained")


def load_named(name: str, weights: Path | None, executor: str = "reference") -> "Agent":
    """Load an agent in floats; its weights must be those of the preset."""
    from mu_ref.settings.agent import load_agent

    agent = load_agent(weights, "float32", executor)
    if agent.model.name != name:
        raise InputError(f"{weights} must hold {name}, it holds {agent.model.name}")
    return agent


def drafting(
    weights: Path | None,
    scheme: str,
    executor: str,
    drafter: str | None,
    beam_width: int,
    draft_len: int,
) -> "Agent":
    """Load the agent, with a drafter if one is named; the errors are those of `load_agent`."""
    from mu_ref.settings.agent import load_agent

    if drafter is None:
        return load_agent(weights, scheme, executor)
    from mu_ref.executors import shipped_drafter
    from mu_ref.redrafter.beams import Search

    path = shipped_drafter(scheme) if drafter == "shipped" else Path(drafter)
    search = Search(beam_width=beam_width, draft_len=draft_len)
    return load_agent(weights, scheme, executor, path, search)
