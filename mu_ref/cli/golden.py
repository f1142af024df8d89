"""`mu-ref golden write` and `golden check`: what a port must reproduce, and where it does not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from mu_ref.border.ranges import SEED, Range
from mu_ref.border.text import json_text, printable, short
from mu_ref.cli import options
from mu_ref.command_line import DIFFERENCE, JsonOption, in_range, named_folder, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.golden.check import Outcome
    from mu_ref.golden.write import Tokens
    from mu_ref.redrafter.beams import Search

__all__ = ["check", "report", "write"]

QUERY = "make the screen warmer at night"
SCHEME = "w8a16"
STEPS = Range(low=1, high=512, why="a golden folder holds every site of every step")
LISTED = 12  # sites that differ, in the text that is printed
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", parser=named_folder, help="Folder of golden files.")
]


def write(
    folder: FolderArgument,
    model: Annotated[
        str | None,
        typer.Option(help="mu-nano (ships, the default), a weight file, or a checkpoint's folder."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help=f"What the encoder reads; '{QUERY}' by default.")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="npz with encoder_input_ids and decoder_input_ids, instead of --query."),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="float32, float64, w8a16 (the default) or w8a8.")
    ] = None,
    depth: Annotated[
        str, typer.Option(help="model (every site of a run), layers (each by itself), or ops.")
    ] = "model",
    drafter: options.DrafterOption = None,
    beam_width: options.WidthOption = None,
    draft_len: options.LengthOption = None,
    max_new_tokens: Annotated[
        int | None, in_range(STEPS, help="Tokens to write, 32 by default.")
    ] = None,
    seed: Annotated[
        int | None, in_range(SEED, help="Of the inputs of layers, 0 by default.")
    ] = None,
) -> None:
    """Write golden files: every number of a run, for a port to compare with."""
    from mu_ref.golden import write as golden

    check_choice("--depth", depth, golden.DEPTHS)
    run: dict[str, object] = {
        "--query": query, "--tokens": tokens, "--max-new-tokens": max_new_tokens,
        "--drafter": drafter, "--beam-width": beam_width, "--draft-len": draft_len,
    }  # fmt: skip
    unused: dict[str, dict[str, object]] = {
        "ops": {"--model": model, "--scheme": scheme, "--seed": seed, **run},
        "layers": run,
        "model": {"--seed": seed},
    }
    options.check_unused(f"with --depth {depth}", unused[depth])
    scheme = SCHEME if scheme is None else scheme
    check_choice("--scheme", scheme, golden.GOLDEN_SCHEMES)
    weights = options.model_file(model)
    if depth == "ops":
        n_bytes = golden.write_operations(folder)
    elif depth == "layers":
        n_bytes = golden.write_layers(folder, weights, scheme, seed or 0)
    else:
        if query is None and tokens is None:
            query = QUERY
        n_bytes = golden.write_run(
            folder, weights, scheme, _tokens(weights, scheme, query, tokens), max_new_tokens or 32,
            *_drafting(drafter, scheme, beam_width, draft_len),
            {} if query is None else {"query": query},
        )  # fmt: skip
    typer.echo(f"wrote {printable(str(folder))}, {n_bytes / 1e6:.2f} MB")


def _drafting(
    drafter: str | None, scheme: str, beam_width: int | None, draft_len: int | None
) -> "tuple[Path | None, Search]":
    from mu_ref.redrafter.beams import Search

    search = Search(beam_width=beam_width or 1, draft_len=draft_len or 6)
    if drafter is None:
        options.check_unused(
            "without --drafter", {"--beam-width": beam_width, "--draft-len": draft_len}
        )
        return None, search
    return options.drafter_file(drafter, scheme), search


def _tokens(weights: Path | None, scheme: str, query: str | None, path: Path | None) -> "Tokens":
    from mu_ref.border.arrays import read_npz
    from mu_ref.executors import load_model
    from mu_ref.golden.write import Tokens
    from mu_ref.readers.token_file import read_inputs
    from mu_ref.settings.agent import load_agent

    kind = "float32" if scheme == "float64" else scheme
    if path is not None:
        if query is not None:
            raise InputError("--query and --tokens must not be given together; leave one out")
        model = load_model(weights, kind).model
        if model.encoder is None:
            arrays = read_npz(path)
            if set(arrays) != {"decoder_input_ids"}:
                raise InputError(f"{path} must hold decoder_input_ids alone for {model.name}, "
                                 f"which has no encoder; got {short(sorted(arrays))}")  # fmt: skip
            return Tokens(None, None, arrays["decoder_input_ids"])
        read = read_inputs(path, model)
        return Tokens(
            read.source, read.source_valid, read.target, read.source_read, read.target_valid
        )
    agent = load_agent(weights, kind)
    source = np.array([agent.source_tokens(query or "")])
    return Tokens(source, np.ones(source.shape, bool), np.array([[agent.model.bos_id]]))


def check(
    folder: FolderArgument,
    port: Annotated[
        Path,
        typer.Argument(
            metavar="PORT_DIR", parser=named_folder, help="Folder of the port's tensors."
        ),
    ],
    names: Annotated[
        Path | None, typer.Option(help="TOML that maps golden names to the port's.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Compare what the port gives; it may lack tensors.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a port with golden files: what differs first, and which operation that is.

    Example: mu-ref golden check golden port --names names.toml
    """
    from mu_ref.golden.check import compare, read_names, read_port
    from mu_ref.golden.folder import read_golden

    golden = read_golden(folder)
    found = compare(golden, read_port(port, read_names(names)), partial=partial)
    if as_json:
        typer.echo(json_text(found.to_json()))
    else:
        for line in report(found):
            plain_console().print(line, soft_wrap=True)
    if found.differences:
        raise typer.Exit(DIFFERENCE)


def report(found: "Outcome") -> list[str]:
    """Say in lines what a comparison found."""
    missing = f"; {len(found.missing)} not given" if found.missing else ""
    if not found.differences:
        return [f"{found.n_compared} tensors agree{missing}"]
    first = found.differences[0]
    lines = [f"first difference: {first.key}, what `{first.op}` computed"]
    if first.shape is not None:
        lines.append(f"  its shape is {list(first.shape)}, it must have {first.n} elements")
    else:
        lines.append(
            f"  at {list(first.index)}: {first.port:.9g}, must be {first.golden:.9g}, off by "
            f"{first.distance:,.6g} {first.unit}; {first.n_wrong:,} of {first.n:,} elements differ"
        )
    lines.append(
        {
            True: f"  all that it reads agrees: so this `{first.op}` is wrong",
            False: "  what it reads differs already, within its tolerance or before it",
            None: "  what it reads is not given: it may be wrong, or something before it",
        }[found.inputs_agree]
    )
    rest = found.differences[1:]
    lines.append(f"after it {len(rest)} of {found.n_compared} tensors differ{missing}")
    lines += [f"  {other.key}: {other.n_wrong:,} of {other.n:,}" for other in rest[:LISTED]]
    if len(rest) > LISTED:
        lines.append(f"  ... and {len(rest) - LISTED} more; --json lists all")
    return lines
