"""`npu-sim speculate`: what drafting would bring on an NPU, for some beams and lengths."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mu_ref.border.ranges import BEAMS, BLOCKS, DRAFTED, SHARE, SIZE, TOKENS, Range
from mu_ref.border.text import json_text, printable, short
from mu_ref.command_line import JsonOption, in_range, plain_console
from mu_ref.config import ModelConfig
from npu_sim.cli.question import Asked, ModelArgument, asks, question
from npu_sim.errors import WorkloadError
from npu_sim.show.tables import print_table
from npu_sim.speculate.acceptance import HOST_US, Acceptance, Steps, acceptance_of
from npu_sim.speculate.measured import Measured, read_drafts, shipped_drafts

if TYPE_CHECKING:
    from mu_ref.redrafter.config import DrafterConfig

__all__ = ["speculate"]

MOST_PAIRS, MOST_DRAFTED, MOST_DIGITS = 64, 8192, 9  # together less than a minute
SAVED = Range(low=0, high=0.999999, whole=False, why="what is verified has nodes")

ONE_FOR_ALL = (
    "warning: one acceptance stands for all beam widths, but wider beams keep more tokens; leave "
    "out --accept-rate for what was measured, or give --acceptance what mu-ref draft-sweep --json "
    "prints"
)

RateOption = Annotated[
    float | None,
    in_range(
        SHARE,
        "--accept-rate",
        help="Each drafted token's chance, if those before it are accepted, for all widths; by "
        "default as measured of mu-nano's drafter, by width.",
    ),
]

AcceptanceOption = Annotated[
    Path | None,
    typer.Option(
        help="What `mu-ref draft-sweep --json` prints; or recorded steps, JSON lines with "
        "n_accepted and nodes; or one line with probabilities of 0, 1, 2 and so on accepted tokens."
    ),
]

SavedOption = Annotated[
    float | None,
    in_range(SAVED, "--nodes-saved", help="Share of drafted nodes that shared prefixes remove."),
]

ExitOption = Annotated[
    int | None,
    in_range(SIZE, "--exit-dim", help="Width of the drafter's blocks; 2 d_model by default."),
]

ContextOption = Annotated[
    int | None,
    in_range(TOKENS, "--context", help="Tokens in the cache; 16, or those of a file, by default."),
]
DEFAULT_CONTEXT = 16  # tokens, where neither an option nor a scenario says how many


@asks("n_output", "batch", "context", "runtime")
def speculate(
    model: ModelArgument = None,
    beam_widths: Annotated[str, typer.Option("--beam-width", help="W, or several: 1,2,4.")] = "4",
    draft_lens: Annotated[str, typer.Option("--draft-len", help="Drafted tokens: 3,5.")] = "3",
    accept_rate: RateOption = None,
    acceptance: AcceptanceOption = None,
    nodes_saved: SavedOption = None,
    exit_dim: ExitOption = None,
    n_blocks: Annotated[int, in_range(BLOCKS, "--blocks", help="Residual blocks.")] = 2,
    rnn: Annotated[bool, typer.Option("--rnn/--no-rnn", help="Recurrent cell, or a sum.")] = True,
    n_context: ContextOption = None,
    host_us: Annotated[
        float, in_range(HOST_US, "--host-us", help="One round trip to the host.")
    ] = 500.0,
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Simulate drafting, verifying and keeping: what a step of drafts would bring.

    All in one graph call, and with the host between.

    Example: npu-sim speculate mu-330m --beam-width 1,2,4 --accept-rate 0.8
    """
    from npu_sim.speculate.step import check_trees
    from npu_sim.speculate.step import speculate as simulate_steps

    what = question(model, asked, only="tile", why="a step of drafts overlaps")
    base = what.scenario
    description, chip, precision = base.description, base.npu, base.precision
    drafter = _drafter(description.model, exit_dim, n_blocks, rnn)
    if asked.n_input is not None and description.model.encoder is None:
        raise WorkloadError(
            f"--input must be left out for {description.name}, which has no encoder"
        )
    read = _read(acceptance, accept_rate)
    _check_acceptance(read, accept_rate, nodes_saved, given=acceptance is not None)
    priced = []
    for width, length in _pairs(beam_widths, draft_lens):
        nodes = _nodes(read, width, length, nodes_saved)
        accepted = _accepted(read, accept_rate, width, length, nodes)
        check_trees(accepted, width, length)
        priced.append((width, length, nodes, accepted))
    if not isinstance(read, Measured) and len({width for width, *_ in priced}) > 1:
        typer.echo(ONE_FOR_ALL, err=True)
    found, n_slots = [], n_context or base.workload.context or DEFAULT_CONTEXT
    for width, length, nodes, accepted in priced:
        cost = simulate_steps(
            description, drafter, width, length, accepted, chip, precision,
            n_input=base.workload.n_input, n_context=n_slots, host_us=host_us,
        )  # fmt: skip
        found.append({"beam_width": width, "draft_len": length, "nodes": nodes} | cost.to_json())
    if as_json:
        about = {"simulated": True, **what.notes(), "acceptance": _source(read)}
        typer.echo(json_text(about | {"steps": found}))
        return
    title = f"{description.name} on {chip.name}, drafter of {drafter.n_parameters / 1e6:.1f} M"
    _print(f"{title} parameters, {precision.label()}", _source(read), found)


def _drafter(
    model: ModelConfig, exit_dim: int | None, n_blocks: int, rnn: bool
) -> "DrafterConfig":  # fmt: skip
    from mu_ref.redrafter.config import DrafterConfig

    if model.decoder is None:
        raise WorkloadError(f"a model that drafts must have a decoder, {model.name} has none")
    d_model = model.decoder.d_model
    return DrafterConfig(
        d_model=d_model, vocab_size=model.vocab_size,
        # [h, s] side by side needs no projection
        d_exit=2 * d_model if exit_dim is None else exit_dim,
        n_blocks=n_blocks, rnn=rnn,
    )  # fmt: skip


def _pairs(beam_widths: str, draft_lens: str) -> list[tuple[int, int]]:
    """Return each width with each length."""
    widths = _numbers("--beam-width", beam_widths, BEAMS)
    lengths = _numbers("--draft-len", draft_lens, DRAFTED)
    if sum(widths) * sum(lengths) > MOST_DRAFTED or len(widths) * len(lengths) > MOST_PAIRS:
        raise WorkloadError(
            f"--beam-width and --draft-len must make at most {MOST_PAIRS} pairs of at most "
            f"{MOST_DRAFTED:,} drafted tokens together, got {len(widths) * len(lengths):,} pairs "
            f"of {sum(widths) * sum(lengths):,}; ask for some of them"
        )
    return list(product(widths, lengths))


def _read(acceptance: Path | None, accept_rate: float | None) -> Steps | Measured | None:
    """What a file says, else what was measured; nothing where one rate stands for all widths."""
    if acceptance is not None:
        return read_drafts(acceptance)
    return shipped_drafts() if accept_rate is None else None


def _check_acceptance(
    read: Steps | Measured | None,
    accept_rate: float | None,
    nodes_saved: float | None,
    *,
    given: bool,
) -> None:
    """Refuse options whose part a file of acceptance plays."""
    if not given:
        return
    if accept_rate is not None:
        raise WorkloadError("--acceptance must stand without --accept-rate; the file has its own")
    if nodes_saved is not None and (
        isinstance(read, Measured) or (read and isinstance(read[0], tuple))
    ):
        raise WorkloadError(
            "--nodes-saved must be left out with recorded steps; the file has their nodes"
        )


def _nodes(
    read: Steps | Measured | None, width: int, length: int, nodes_saved: float | None
) -> int:
    """Nodes that are left where beams share prefixes."""
    if isinstance(read, Measured) and nodes_saved is None:
        return read.nodes(width, length)
    # a single path cannot share anything with itself
    return max(1 + length, 1 + round(width * length * (1 - (nodes_saved or 0.0))))


def _accepted(
    read: Steps | Measured | None, accept_rate: float | None, width: int, length: int, nodes: int
) -> Acceptance:
    if isinstance(read, Measured):
        return read.acceptance(width, length, nodes)
    if read is not None:
        return acceptance_of(read, nodes)
    assert accept_rate is not None
    return Acceptance.chain(accept_rate, length, nodes)


def _source(read: Steps | Measured | None) -> str:
    if isinstance(read, Measured):
        return f"measured by beam width: {read.source}"
    return "given, the same for every beam width"


def _print(title: str, source: str, found: list[dict[str, float]]) -> None:
    console = plain_console()
    console.print(
        f"{printable(title)}; milliseconds, simulated (tile).\n"
        f"acceptance: {printable(source)}.\n"
        "gain: one graph call per step against plain decoding; host: draft and verify are two "
        "calls and the host packs and accepts; pays at: tokens per step where the gain is 1\n",
        soft_wrap=True,
    )
    print_table(console, _table(found))


def _table(found: list[dict[str, float]]) -> Table:
    table = Table(box=None, pad_edge=False)
    headers = {
        "W": ("beam_width", "d"), "L": ("draft_len", "d"), "nodes": ("nodes", "d"),
        "tok/step": ("tokens_per_step", ".2f"), "plain": ("plain_ms", ".3f"),
        "draft": ("draft_ms", ".3f"), "verify": ("verify_ms", ".3f"),
        "keep": ("compact_ms", ".3f"), "step": ("in_engine_ms", ".3f"),
        "gain": ("speedup_in_engine", ".2f"), "host": ("speedup_host", ".2f"),
        "pays at": ("break_even_tokens_per_step", ".2f"),
    }  # fmt: skip
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in found:
        table.add_row(*(format(row[name], form) for name, form in headers.values()))
    return table


def _numbers(option: str, text: str, allowed: Range) -> list[int]:
    """Read "1,2,4": each once, and in its range."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= MOST_DIGITS for part in parts):
        raise WorkloadError(
            f"{option} must be whole numbers separated by commas, got {short(text)}"
        )
    numbers = [allowed.check(option, int(part), WorkloadError) for part in parts]
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise WorkloadError(f"{option} must name each number once, got {twice[0]} twice")
    return numbers
