"""Options that several commands of `mu-ref` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mu_ref.settings.agent import Agent

__all__ = ["DrafterOption", "LengthOption", "WidthOption", "drafting"]


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

WidthOption = Annotated[int, typer.Option("--beam-width", min=1, help="Beams that are drafted.")]

LengthOption = Annotated[int, typer.Option("--draft-len", min=1, help="Drafted tokens of a beam.")]


def drafting(
    weights: Path | None,
    scheme: str,
    executor: str,
    drafter: str | None,
    beam_width: int,
    draft_len: int,
) -> "Agent":
    """Load the agent, with a drafter if one is named; the errors are those of `load_agent`."""
    from dataclasses import replace

    from mu_ref.settings.agent import load_agent

    if drafter is None:
        return load_agent(weights, scheme, executor)
    from mu_ref.redrafter.beams import Search
    from mu_ref.settings.drafts import shipped_drafter

    path = shipped_drafter(scheme) if drafter == "shipped" else Path(drafter)
    agent = load_agent(weights, scheme, executor, path)
    return replace(agent, search=Search(beam_width=beam_width, draft_len=draft_len))
