"""What every command of `npu-sim` can be asked: one set of options, and the scenario that they say.

A command takes `asked: Asked`, and `@asks()` puts these options in its place on the command line.
What is not given is the scenario file's own, or the default.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from mu_ref.border.overrides import assignments
from mu_ref.border.ranges import TOKENS
from mu_ref.command_line import in_range
from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError
from npu_sim.report.fidelity import FIDELITIES
from npu_sim.whatif.scenario import BATCH, Scenario
from npu_sim.whatif.scenario_toml import (
    DEFAULT_NPU,
    MODEL_KEYS,
    base_files,
    base_scenario,
    read_tables,
    table_of,
)

__all__ = ["Asked", "ModelArgument", "Question", "asks", "merged", "named_files", "question"]

ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Model preset, or a TOML file of a scenario.", metavar="MODEL|FILE"),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options that all commands share; None and () are not given."""

    model_json: Annotated[
        str | None, typer.Option(help="FILE#name: a model of a neutral JSON file.")
    ] = None
    hf_config: Annotated[
        str | None, typer.Option(help="config.json of a Hugging Face model, or its folder.")
    ] = None
    npu: Annotated[
        str | None,
        typer.Option("--npu", help=f"NPU, or FILE.toml of one; {DEFAULT_NPU} by default."),
    ] = None
    n_input: Annotated[
        int | None, in_range(TOKENS, "--input", help="Tokens read, 64 by default")
    ] = None
    n_output: Annotated[
        int | None, in_range(TOKENS, "--output", help="Tokens written, 32 by default")
    ] = None
    batch: Annotated[int | None, in_range(BATCH, "--batch", help="Requests computed together")] = (
        None
    )
    context: Annotated[
        int | None,
        in_range(TOKENS, "--context", help="Slots that every call processes; exact by default"),
    ] = None
    filled: Annotated[
        int | None,
        in_range(TOKENS, "--filled", help="Slots of the context with tokens; the request's own"),
    ] = None
    runtime: Annotated[str | None, typer.Option(help="Who calls the graphs: native or geniex.")] = (
        None
    )
    weight_bits: Annotated[
        int | None, typer.Option(help="Width of weights: 4, 8 (default) or 16.")
    ] = None
    activation_bits: Annotated[
        int | None, typer.Option(help="Width of activations: 8 or 16 (default).")
    ] = None
    kv_bits: Annotated[
        int | None, typer.Option(help="Width of cached keys and values, 16 by default.")
    ] = None
    head_weight_bits: Annotated[
        int | None, typer.Option(help="Width of the vocabulary projection; by default as weights.")
    ] = None
    fidelity: Annotated[
        str | None, typer.Option(help="tile, the default (engines wait), or roofline (a bound).")
    ] = None
    set_fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any field, as in a sweep: npu.dma.bytes_per_s='100 GB/s'; repeatable.",
        ),
    ] = None


WORKLOAD = ("n_input", "n_output", "batch", "context", "filled", "runtime")
WIDTHS = ("weight_bits", "activation_bits", "kv_bits", "head_weight_bits")


def asks(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the shared options in the place of a command's parameter `asked`.

    Args:
        *without: fields of `Asked` that the command has no use for.

    Returns:
        The decorator.
    """
    shared = [one.name for one in fields(Asked) if one.name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            asked = Asked(**{name: given.pop(name) for name in shared})
            command(**given, asked=asked)

        own = inspect.signature(command).parameters
        hints = get_type_hints(command, include_extras=True)
        of_asked = get_type_hints(Asked, include_extras=True)
        keyword, parameters = inspect.Parameter.KEYWORD_ONLY, []
        for name, parameter in own.items():
            if name == "asked":
                parameters += [
                    inspect.Parameter(n, keyword, default=None, annotation=of_asked[n])
                    for n in shared
                ]
            else:
                parameters.append(parameter.replace(kind=keyword, annotation=hints[name]))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return run

    return decorate


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a command starts from."""

    scenario: Scenario
    fidelity: str
    files: tuple[Path, ...]  # that were read
    changed: Mapping[str, str] = field(default_factory=dict)  # what --set has set, as given

    @property
    def title(self) -> str:
        """Model, NPU, lengths and widths in one line; what is set is in the names."""
        s, w = self.scenario, self.scenario.workload
        more = [f"batch {w.batch}"] if w.batch > 1 else []
        more += [] if w.context is None else [f"context {w.context}"]
        more += [] if w.filled is None else [f"{w.filled} filled"]
        n_output = 1 if s.description.model.decoder is None else w.n_output
        lengths = ", ".join([f"{w.n_input} tokens in, {n_output} out", *more])
        return f"{s.description.name} on {s.npu.name}: {lengths}, {s.precision.label()}"

    def notes(self) -> dict[str, Any]:
        """What JSON says of it beside the answer."""
        s = self.scenario
        known = {"model": s.description.name, "npu": s.npu.name, "fidelity": self.fidelity}
        return known | ({"set": dict(self.changed)} if self.changed else {})


def question(base: str | None, asked: Asked, *, only: str = "", why: str = "") -> Question:
    """Read what is asked.

    Args:
        base: a preset, or FILE.toml of a scenario; None where another option names the model.
        asked: the options.
        only: the one fidelity that the command has, if it has one.
        why: that is so.

    Returns:
        The scenario, and how it is simulated.

    Raises:
        MuRefError: none or several models, or whatever is wrong with one of them, with a file or
            with an option.
    """
    is_file = base is not None and base.endswith(".toml")
    data: dict[str, Any] = {}
    if is_file:
        data = read_tables(Path(str(base)))
        # a file is understood whole, also what an option takes the place of
        base_scenario({key: value for key, value in data.items() if key != "fidelity"})
    elif base is not None:
        data = {"model": base}
    data, fidelity = merged(data, asked, from_file=is_file)
    check_choice("fidelity", fidelity or FIDELITIES[0], FIDELITIES, WorkloadError)
    if only and fidelity not in (None, only):
        raise WorkloadError(f"fidelity must be {only} here, got {fidelity}; {why}")
    scenario = base_scenario(data)
    if asked.kv_bits is not None and scenario.description.model.decoder is None:
        raise WorkloadError(
            f"--kv-bits must be left out for {scenario.description.name}, which caches nothing, "
            f"got {asked.kv_bits}"
        )
    files = base_files(data)
    return Question(
        scenario=scenario, fidelity=fidelity or FIDELITIES[0], changed=_set(asked),
        files=(Path(str(base)), *files) if is_file else files,
    )  # fmt: skip


def named_files(base: str | None, asked: Asked) -> tuple[Path, ...]:
    """Return the files that the options name, before any is read."""
    named = {"npu": asked.npu, "model_json": asked.model_json, "hf_config": asked.hf_config}
    files = base_files({key: value for key, value in named.items() if value is not None})
    return (Path(base), *files) if base is not None and base.endswith(".toml") else files


def merged(
    data: Mapping[str, Any], asked: Asked, *, from_file: bool
) -> tuple[dict[str, Any], str | None]:
    """Put the options before what a file says.

    Args:
        data: of a scenario or a sweep, as `base_scenario` takes it, and `fidelity`.
        asked: the options.
        from_file: so that a model that an option names takes the place of the file's.

    Returns:
        What `base_scenario` takes, and the fidelity if one is named.
    """
    found = dict(data)
    own = found.pop("fidelity", None)
    models = {"model_json": asked.model_json, "hf_config": asked.hf_config}
    named = {key: value for key, value in models.items() if value is not None}
    if named and from_file:
        found = {key: value for key, value in found.items() if key not in MODEL_KEYS}
    found |= named
    if asked.npu is not None:
        found["npu"] = asked.npu
    for table, names in (("workload", WORKLOAD), ("precision", WIDTHS)):
        given = {n: getattr(asked, n) for n in names if getattr(asked, n) is not None}
        if given or table in found:
            found[table] = {**table_of(found, table), **given}
    changes = _set(asked)
    if changes:
        found["set"] = {**table_of(found, "set"), **changes}
    return found, own if asked.fidelity is None else asked.fidelity


def _set(asked: Asked) -> dict[str, str]:
    return assignments(asked.set_fields or [])
