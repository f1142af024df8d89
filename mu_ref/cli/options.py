"""Options that several commands of `mu-ref` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mu_ref.border.files import DATA, is_stream
from mu_ref.border.ranges import BEAMS, DRAFTED, Range
from mu_ref.command_line import in_range, plain_console
from mu_ref.errors import InputError

if TYPE_CHECKING:
    from mu_ref.settings.agent import Agent
    from mu_ref.settings.valid.decide import Decoding

__all__ = [
    "INTERVAL", "LISTED", "CandidatesOption", "DecodeOption", "DrafterOption",
    "ExecutorOption", "LengthOption", "RankOption", "ResumeOption", "SchemeOption",
    "WeightsOption", "WidthOption", "check_named", "check_unused", "decoding", "drafter_file",
    "drafting", "files_of_agent", "load_named", "model_file", "report_console",
]  # fmt: skip

LISTED = Range(low=0, high=10**9, why="no table has a thousand million rows")
INTERVAL = "Steps from one checkpoint to the next: what a kill can cost."

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

# None: not given, so that a width without a drafter can be refused
WidthOption = Annotated[
    int | None, in_range(BEAMS, "--beam-width", help="Beams that are drafted, 1 by default.")
]
LengthOption = Annotated[
    int | None, in_range(DRAFTED, "--draft-len", help="Drafted tokens of a beam, 3 by default.")
]

ResumeOption = Annotated[
    bool,
    typer.Option(help="Go on from the checkpoint beside --out; give the same options."),
]

DecodeOption = Annotated[
    str,
    typer.Option(
        help="greedy: the likeliest tokens that make a valid call; search: the best of several "
        "calls; auto: a search where greedy is in doubt."
    ),
]
CandidatesOption = Annotated[
    int | None, typer.Option(help="Calls that a search finds, 16 by default.")
]
RankOption = Annotated[
    str | None,
    typer.Option(help="What chooses among them: model, linear (the scorer) or both, the default."),
]


def decoding(
    decode: str, candidates: int | None, rank: str | None, *, greedily: bool = False
) -> "Decoding":
    """Return how to decode; what a search alone uses is refused where there is none."""
    from mu_ref.settings.valid.decide import CANDIDATES, Decoding

    if greedily and decode == "search":
        raise InputError("--execute must go with --decode greedy or auto: it writes greedily")
    if candidates is not None:
        CANDIDATES.check("--candidates", candidates)
    given: dict[str, Any] = {"rank": rank, "candidates": candidates}
    found = Decoding(decode=decode, **{k: v for k, v in given.items() if v is not None})
    if decode == "greedy":
        check_unused("with --decode greedy", {"--candidates": candidates, "--rank": rank})
    return found


def check_unused(why: str, given: Mapping[str, Any]) -> None:
    """Refuse options that would do nothing.

    Args:
        why: stands after the names: "without --npu".
        given: {option: value}; None and False are not given.

    Raises:
        InputError: one was given.
    """
    names = [name for name, value in given.items() if value is not None and value is not False]
    if names:
        raise InputError(
            f"{', '.join(names)} must not be given {why}: nothing would change; leave it out"
        )


def report_console(*outputs: Path | None) -> Console:
    """Return the console for what is said; stderr if a file is written to a stream."""
    return plain_console(stderr=any(path is not None and is_stream(path) for path in outputs))


def files_of_agent(
    weights: Path | None, scheme: str = "float32", drafter: Path | None = None
) -> dict[str, Path | None]:
    """Return {what: file} of all that an agent is read from; see `load_agent`."""
    from mu_ref.executors import shipped_weights

    if weights is None and scheme != "w4a16":
        weights = shipped_weights(scheme)
    files: dict[str, Path | None] = {}
    for option, given in (("--weights", weights), ("--drafter", drafter)):
        if given is not None and given.is_dir():  # another project's checkpoint
            from mu_ref.readers import files_of

            files |= {f"{option} {path.name}": path for path in files_of(given)}
        else:
            files[option] = given
    package = DATA.parents[1]
    places = (DATA / "tokenizer.json", DATA / "catalog.json", package / "presets.toml",
              package / "integers" / "tables.json")  # fmt: skip
    return files | {place.name: place for place in places}


def check_named(name: str, weights: Path | None) -> None:
    """Refuse a preset that ships without weights, unless some are given."""
    from mu_ref.presets import preset

    if preset(name).name != "mu-nano" and weights is None:
        raise InputError(f"{name} must be given --weights; only mu-nano ships trained")


def model_file(model: str | None) -> Path | None:
    """Return the file or folder that --model names; None for the one that ships, mu-nano."""
    from mu_ref.presets import PRESETS

    if model is None or model == "mu-nano":
        return None
    if not model or (model in PRESETS and not Path(model).exists()):
        raise InputError(
            f"--model must be a file or folder for {model or 'a model'}; only mu-nano ships trained"
        )
    return Path(model)


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
    beam_width: int | None,
    draft_len: int | None,
    *,
    tokenized: bool = True,
) -> "Agent":
    """Load the agent, with a drafter if one is named; the errors are those of `load_agent`."""
    from mu_ref.settings.agent import load_agent

    if drafter is None:
        check_unused("without --drafter", {"--beam-width": beam_width, "--draft-len": draft_len})
        return load_agent(weights, scheme, executor, tokenized=tokenized)
    from mu_ref.redrafter.beams import Search

    search = Search(beam_width=beam_width or 1, draft_len=draft_len or 3)
    file = drafter_file(drafter, scheme)
    return load_agent(weights, scheme, executor, file, search, tokenized=tokenized)


def drafter_file(drafter: str, scheme: str) -> Path:
    """Return the file of a drafter; "shipped" is that of the scheme."""
    from mu_ref.executors import shipped_drafter

    return shipped_drafter(scheme) if drafter == "shipped" else Path(drafter)
