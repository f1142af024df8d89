"""`mu-ref generate`, `train-drafter`, `quantize-drafter` and `draft-sweep`: Apple's ReDrafter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_ref.border.files import RUNS, check_outputs
from mu_ref.border.ranges import (
    BATCH,
    BEAMS,
    BLOCKS,
    COUNT,
    DRAFTED,
    EPOCHS,
    NEW_TOKENS,
    RATE,
    REWORDINGS,
    SEED,
    SHARE,
    Range,
)
from mu_ref.border.text import json_text, printable, short
from mu_ref.cli import options
from mu_ref.command_line import DIFFERENCE, JsonOption, in_range, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from rich.console import Console

    from mu_ref.config import ModelConfig
    from mu_ref.redrafter.config import DrafterConfig
    from mu_ref.redrafter.steps import Statistics
    from mu_ref.settings.agent import Agent

__all__ = ["draft_sweep", "generate", "quantize_drafter", "train_drafter"]

EXIT_WIDTH = Range(low=1, high=8192, why="a drafter is narrower than any model")
MOST_WEIGHTS = 10**8  # of a drafter; one ships with 480,000


def generate(
    query: Annotated[str, typer.Argument(help="What the encoder reads; token ids with --ids.")],
    drafter: options.DrafterOption = None,
    beam_width: options.WidthOption = None,
    draft_len: options.LengthOption = None,
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "fast",
    tree: Annotated[
        Path | None, typer.Option(help="Also draw the first tree of drafts: .png, .svg or .pdf.")
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="Read and write token ids, without a tokenizer.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, in_range(NEW_TOKENS, help="With --ids: tokens to write, 32 by default.")
    ] = None,
) -> None:
    """Write the answer to one query, with drafts if asked for, and say how drafting went.

    With --ids also for the folder of a LLaMA and of the drafter that Apple's code made for it.

    Example: mu-ref generate "wifi on" --drafter shipped --beam-width 4
    """
    from mu_ref.redrafter.steps import Statistics
    from mu_ref.settings.agent import MAX_NEW_TOKENS

    if drafter is None:
        options.check_unused("without --drafter", {"--tree": tree})
    if ids:
        options.check_unused("with --ids, since a tree shows words", {"--tree": tree})
    else:
        options.check_unused("without --ids", {"--max-new-tokens": max_new_tokens})
    file = None if drafter is None else options.drafter_file(drafter, scheme)
    read = options.files_of_agent(weights, scheme, file).values()
    check_outputs({}, read, pictures={"--tree": tree})
    given = weights, scheme, executor, drafter, beam_width, draft_len
    agent = options.drafting(*given, tokenized=not ids)
    seen = Statistics()
    if ids:
        most = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        tokens = agent.write_ids(_token_ids(query), most, seen)
    else:
        (tokens,) = agent.write(agent.remember(query), 1, seen)
    kept = [t for t in tokens if t not in agent.model.eos_ids]
    text = " ".join(map(str, kept)) if ids else agent.tokenizer.decode(kept)
    console = options.report_console(tree)
    console.print(printable(text), soft_wrap=True)
    if drafter is None:
        console.print(f"  {len(tokens)} tokens in {len(tokens)} passes")
        return
    passes = f"{1 + seen.n_steps} passes, the first without a draft"
    console.print(f"  {len(tokens)} tokens in {passes}")
    for name, value in _rows(seen):
        console.print(f"  {name:<22} {value}", soft_wrap=True)
    if tree is not None:
        _show_tree(agent, query, tree, console)


def _show_tree(agent: "Agent", query: str, tree: Path, console: "Console") -> None:
    """Print and draw the first tree of drafts."""
    from mu_ref.redrafter.draw import plot_tree, tree_text
    from mu_ref.settings.drafts import first_tree

    def named(token: int) -> str:
        return agent.tokenizer.decode([token]) or "end"

    drafted, beams, kept = first_tree(agent, query)
    console.print(tree_text(drafted, beams, kept, named), soft_wrap=True)
    plot_tree(drafted, beams, kept, tree, named, query)


def _token_ids(text: str) -> list[int]:
    """Read token ids with blanks between them; InputError if it is something else."""
    words = text.split()
    if not words or not all(w.isascii() and w.isdigit() and len(w) < 10 for w in words):
        raise InputError("QUERY must be token ids with blanks between, such as '5 6 7', with "
                         f"--ids; got {short(text)}")  # fmt: skip
    return [int(word) for word in words]


def _rows(seen: "Statistics") -> list[tuple[str, str]]:
    steps = max(1, seen.n_steps)
    kept = ", ".join(f"{n}: {count}" for n, count in sorted(seen.accepted.items()))
    return [
        ("tokens per step", f"{seen.tokens_per_step:.2f}"),
        ("drafted tokens kept", f"{kept}  (tokens: steps)"),
        ("nodes before packing", f"{seen.nodes_before / steps:.1f}"),
        ("nodes after packing", f"{seen.nodes_after / steps:.1f}"),
        ("drafter's share", f"{100 * seen.draft_share:.0f} % of the time"),
    ]


OutOption = Annotated[
    Path, typer.Option(help="Drafter to write, in the folder runs by default.", show_default=False)
]


def train_drafter(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    out: OutOption = RUNS / "mu-nano-drafter.safetensors",
    weights: options.WeightsOption = None,
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="Queries, JSON lines; the shipped training splits by default."),
    ] = None,
    limit: Annotated[int | None, in_range(COUNT, help="Queries to use, evenly spread.")] = None,
    rewordings: Annotated[int, in_range(REWORDINGS, help="Times all is asked in other words.")] = 0,
    later_share: Annotated[
        float, in_range(SHARE, help="Of the places behind an answer's first, how many are trained.")
    ] = 1.0,
    epochs: Annotated[int, in_range(EPOCHS)] = 4,
    draft_len: Annotated[int, in_range(DRAFTED, help="Tokens ahead that are trained.")] = 8,
    d_exit: Annotated[
        int | None, in_range(EXIT_WIDTH, help="Width, that of the model by default.")
    ] = None,
    blocks: Annotated[int | None, in_range(BLOCKS, help="Residual blocks, 1 by default.")] = None,
    rnn: Annotated[
        bool | None, typer.Option("--rnn/--no-rnn", help="A trained recurrent cell, by default.")
    ] = None,
    batch_size: Annotated[int, in_range(BATCH, help="Positions of a step.")] = 1024,
    rate: Annotated[float, in_range(RATE, help="Peak learning rate.")] = 3e-3,
    seed: Annotated[int, in_range(SEED)] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Drafter to start from; by default random weights.")
    ] = None,
    resume: options.ResumeOption = False,
    checkpoint_steps: Annotated[int, in_range(COUNT, help=options.INTERVAL)] = 50,
) -> None:
    """Train a drafter on what the model itself writes; the model stays as it is."""
    from mu_ref.redrafter.train import DrafterTraining
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries
    from mu_ref.settings.queries.training_data import drafter_queries
    from mu_ref.settings.train import training_queries
    from mu_ref.settings.train_drafter import train_agent_drafter
    from mu_ref.settings.training_run import plan_run

    options.check_named(name, weights)
    if start is not None:
        way = None if rnn is None else 1
        sizes = {"--d-exit": d_exit, "--blocks": blocks, "--rnn/--no-rnn": way}
        options.check_unused("with --start, whose sizes the drafter has", sizes)
    training = DrafterTraining(
        epochs=epochs, draft_len=draft_len, batch_size=batch_size, peak_rate=rate, seed=seed,
        later_share=later_share,
    )  # fmt: skip
    files = training_queries(queries)
    inputs = files | options.files_of_agent(weights)
    plan_run(out, [*inputs.values(), start], resume=resume)
    items = [item for file in files.values() for item in read_queries(file)]
    agent = options.load_named(name, weights, "fast")
    texts = drafter_queries(evenly_spread(items, limit), agent.catalog, rewordings, seed)
    drafter = _drafter_of(agent.model, d_exit, blocks, rnn)
    train_agent_drafter(
        agent, drafter, texts, training, out, inputs=inputs, start=start, resume=resume,
        checkpoint_steps=checkpoint_steps, notes={"rewordings": str(rewordings)},
        console=options.report_console(out),
    )  # fmt: skip


def _drafter_of(
    model: "ModelConfig", d_exit: int | None, blocks: int | None, rnn: bool | None
) -> "DrafterConfig":
    from mu_ref.redrafter.config import DrafterConfig

    d_model = model.stacks["decoder"].d_model
    drafter = DrafterConfig(
        d_model=d_model, vocab_size=model.vocab_size, d_exit=d_exit or d_model,
        n_blocks=1 if blocks is None else blocks, rnn=rnn is not False,
    )  # fmt: skip
    if drafter.n_parameters > MOST_WEIGHTS:
        raise InputError(
            f"a drafter must have at most {MOST_WEIGHTS:,} weights, got {drafter.n_parameters:,}; "
            "give a smaller --d-exit or --blocks"
        )
    return drafter


def quantize_drafter(
    drafter: Annotated[Path | None, typer.Argument(help="Float drafter; the shipped one.")] = None,
    scheme: Annotated[str, typer.Option(help="w8a16 or w8a8.")] = "w8a16",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Integer drafter to write; runs/mu-nano-drafter-SCHEME.safetensors by default."
        ),
    ] = None,
    weights: options.WeightsOption = None,
    integers: Annotated[
        Path | None, typer.Option(help="Integer model it works with; the shipped one.")
    ] = None,
    examples: Annotated[int, in_range(COUNT, help="Calibration queries.")] = 128,
    draft_len: Annotated[int, in_range(DRAFTED, help="Drafted tokens to watch.")] = 6,
) -> None:
    """Turn a float drafter into integers, for an integer model.

    Example: mu-ref quantize-drafter drafter.safetensors --scheme w8a16
    """
    from mu_ref.executors import shipped_drafter, shipped_weights
    from mu_ref.integers.store import load_integers
    from mu_ref.redrafter.store import save_integer_drafter
    from mu_ref.settings.agent import load_agent
    from mu_ref.settings.catalog import DATA
    from mu_ref.settings.drafts import quantize_agent_drafter
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries

    check_choice("scheme", scheme, ["w8a16", "w8a8"])
    out = RUNS / f"mu-nano-drafter-{scheme}.safetensors" if out is None else out
    if weights is not None and integers is None:
        raise InputError("--weights must come with --integers, made of the same weights; add them")
    place = shipped_weights(scheme) if integers is None else integers
    source = shipped_drafter("float32") if drafter is None else drafter
    calibration = DATA / "train.jsonl"
    read = options.files_of_agent(weights, drafter=source).values()
    check_outputs({"--out": out}, [*read, place, calibration])
    model = load_integers(place)
    if model.scheme != scheme:
        raise InputError(f"{place} must hold {scheme} weights, it holds {model.scheme}")
    items = evenly_spread(read_queries(calibration), examples)
    texts = [item.query for item in items]
    made = quantize_agent_drafter(load_agent(weights), source, model, texts, draft_len)
    save_integer_drafter(out, made)
    options.report_console(out).print(f"wrote {out}", soft_wrap=True)


def draft_sweep(
    file: Annotated[Path, typer.Argument(help="Queries, JSON lines.")],
    drafter: Annotated[str, typer.Option(help="Drafter file, or shipped.")] = "shipped",
    beam_width: Annotated[
        list[int] | None, in_range(BEAMS, help="Repeatable; 1, 2 and 4 by default.")
    ] = None,
    draft_len: Annotated[
        list[int] | None, in_range(DRAFTED, help="Repeatable; 3, 5 and 7 by default.")
    ] = None,
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "fast",
    limit: Annotated[int | None, in_range(COUNT, help="Queries to use, evenly spread.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw both curves: .png, .svg or .pdf.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure tokens per step and speed-up over plain decoding, side by side.

    Example: mu-ref draft-sweep queries.jsonl --beam-width 1 --beam-width 4 --limit 50
    """
    from mu_ref.redrafter.beams import Search
    from mu_ref.settings.draft_sweep import fastest_line, sweep, sweep_table
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries

    drafter_file = options.drafter_file(drafter, scheme)
    read = options.files_of_agent(weights, scheme, drafter_file).values()
    check_outputs({}, [file, *read], pictures={"--plot": plot})
    searches = [
        Search(beam_width=width, draft_len=length)
        for width in dict.fromkeys(beam_width or [1, 2, 4])
        for length in dict.fromkeys(draft_len or [3, 5, 7])
    ]
    items = evenly_spread(read_queries(file), limit)
    texts = [item.query for item in items if any(c.isalnum() for c in item.query)]
    if not texts:
        raise InputError(f"{file} must hold queries with a letter or digit; it holds none")
    agent = options.drafting(weights, scheme, executor, drafter, 1, 1)
    points = sweep(agent, texts, searches, plain_console(stderr=True))
    if plot is not None:
        from mu_ref.settings.draft_sweep import plot_sweep

        plot_sweep(points, f"{agent.model.name} {scheme}, {executor}, {len(texts)} queries", plot)
    same = all(point.same == point.n_queries for point in points)
    if as_json:
        typer.echo(json_text([point.to_json() for point in points]))
    else:
        console = options.report_console(plot)
        console.print(sweep_table(points, f"{agent.model.name}, {scheme}, {executor} executor"))
        if same:
            console.print(fastest_line(points), soft_wrap=True)
    if not same:
        typer.echo("error: output must be the same with and without drafts; it was not", err=True)
        raise typer.Exit(DIFFERENCE)
