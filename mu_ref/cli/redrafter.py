"""`mu-ref generate`, `train-drafter`, `quantize-drafter` and `draft-sweep`: Apple's ReDrafter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mu_ref.cli import options
from mu_ref.command_line import JsonOption
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.redrafter.steps import Statistics

__all__ = ["draft_sweep", "generate", "quantize_drafter", "train_drafter"]


def generate(
    query: Annotated[str, typer.Argument(help="What the encoder reads.")],
    drafter: options.DrafterOption = None,
    beam_width: options.WidthOption = 1,
    draft_len: options.LengthOption = 6,
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "fast",
    tree: Annotated[Path | None, typer.Option(help="Also draw the first tree of drafts.")] = None,
) -> None:
    """Write the answer to one query, with drafts if asked for, and say how drafting went."""
    from mu_ref.redrafter.steps import Statistics

    agent = options.drafting(weights, scheme, executor, drafter, beam_width, draft_len)
    seen = Statistics()
    (tokens,) = agent.write(agent.remember(query), 1, seen)
    typer.echo(agent.tokenizer.decode([t for t in tokens if t != agent.model.eos_id]))
    if drafter is None:
        typer.echo(f"  {len(tokens)} tokens in {len(tokens)} passes")
        return
    typer.echo(f"  {len(tokens)} tokens in {1 + seen.n_steps} passes, the first without a draft")
    for name, value in _rows(seen):
        typer.echo(f"  {name:<22} {value}")
    if tree is not None:
        from mu_ref.redrafter.draw import plot_tree, tree_text
        from mu_ref.settings.drafts import first_tree

        def text(token: int) -> str:
            return agent.tokenizer.decode([token]) or "end"

        drafted, beams, kept = first_tree(agent, query)
        typer.echo(tree_text(drafted, beams, kept, text))
        plot_tree(drafted, beams, kept, tree, text, query)


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


def train_drafter(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    out: Annotated[Path, typer.Option(help="Drafter file to write.")] = Path(
        "runs/mu-nano-drafter.safetensors"
    ),
    weights: options.WeightsOption = None,
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="Queries, JSON lines; the shipped training splits by default."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Queries to use, evenly spread.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    draft_len: Annotated[int, typer.Option(min=1, help="Tokens ahead that are trained.")] = 8,
    d_exit: Annotated[int | None, typer.Option(min=1, help="Width; that of the model.")] = None,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks.")] = 1,
    rnn: Annotated[bool, typer.Option(help="A trained recurrent cell.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Positions of a step.")] = 1024,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Drafter to start from; by default random weights.")
    ] = None,
) -> None:
    """Train a drafter on what the model itself writes; the model stays as it is."""
    from mu_ref.redrafter.config import DrafterConfig
    from mu_ref.redrafter.train import DrafterTraining
    from mu_ref.settings.catalog import DATA
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries
    from mu_ref.settings.train_drafter import train_agent_drafter

    options.check_named(name, weights)
    training = DrafterTraining(
        epochs=epochs, draft_len=draft_len, batch_size=batch_size, peak_rate=rate, seed=seed
    )
    files = queries or [DATA / "train.jsonl", DATA / "train_more.jsonl"]
    texts = evenly_spread([item.query for file in files for item in read_queries(file)], limit)
    agent = options.load_named(name, weights, "fast")
    d_model = agent.model.stacks["decoder"].d_model
    drafter = DrafterConfig(
        d_model=d_model, vocab_size=agent.model.vocab_size, d_exit=d_exit or d_model,
        n_blocks=blocks, rnn=rnn,
    )  # fmt: skip
    train_agent_drafter(
        agent, drafter, texts, training, out, start=start, console=Console(highlight=False)
    )


def quantize_drafter(
    drafter: Annotated[Path | None, typer.Argument(help="Float drafter; the shipped one.")] = None,
    scheme: Annotated[str, typer.Option(help="w8a16 or w8a8.")] = "w8a16",
    out: Annotated[Path, typer.Option(help="Integer drafter to write.")] = Path(
        "runs/mu-nano-drafter-w8a16.safetensors"
    ),
    weights: options.WeightsOption = None,
    integers: Annotated[
        Path | None, typer.Option(help="Integer model it works with; the shipped one.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Calibration queries.")] = 128,
    draft_len: options.LengthOption = 6,
) -> None:
    """Turn a float drafter into integers, for an integer model."""
    from mu_ref.executors import shipped_drafter, shipped_weights
    from mu_ref.redrafter.store import save_integer_drafter
    from mu_ref.settings.agent import load_agent
    from mu_ref.settings.catalog import DATA
    from mu_ref.settings.drafts import quantize_agent_drafter
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries

    check_choice("scheme", scheme, ["w8a16", "w8a8"])
    items = evenly_spread(read_queries(DATA / "train.jsonl"), examples)
    texts = [item.query for item in items]
    agent = load_agent(weights)
    integers = shipped_weights(scheme) if integers is None else integers
    source = shipped_drafter("float32") if drafter is None else drafter
    made = quantize_agent_drafter(agent, source, integers, texts, draft_len)
    if made.scheme != scheme:
        raise InputError(f"{integers} must hold {scheme} weights, it holds {made.scheme}")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_integer_drafter(out, made)
    typer.echo(f"wrote {out}")


def draft_sweep(
    file: Annotated[Path, typer.Argument(help="Queries, JSON lines.")],
    drafter: Annotated[str, typer.Option(help="Drafter file, or shipped.")] = "shipped",
    beam_width: Annotated[list[int] | None, typer.Option(help="Repeatable.")] = None,
    draft_len: Annotated[list[int] | None, typer.Option(help="Repeatable.")] = None,
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "fast",
    limit: Annotated[int | None, typer.Option(min=1, help="Queries to use, evenly spread.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw both curves.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure tokens per step and speed-up over plain decoding, side by side."""
    from mu_ref.redrafter.beams import Search
    from mu_ref.settings.draft_sweep import sweep, sweep_table
    from mu_ref.settings.queries.labelled import evenly_spread, read_queries

    searches = [
        Search(beam_width=width, draft_len=length)
        for width in beam_width or [1, 2, 4]
        for length in draft_len or [4, 6, 8]
    ]
    items = evenly_spread(read_queries(file), limit)
    texts = [item.query for item in items if any(c.isalnum() for c in item.query)]
    if not texts:
        raise InputError(f"{file} must hold queries with a letter or digit; it holds none")
    agent = options.drafting(weights, scheme, executor, drafter, 1, 1)
    points = sweep(agent, texts, searches, Console(stderr=True))
    if plot is not None:
        from mu_ref.settings.draft_sweep import plot_sweep

        plot_sweep(points, f"{agent.model.name} {scheme}, {executor}, {len(texts)} queries", plot)
    if as_json:
        for point in points:
            typer.echo(point.to_json())
        return
    console = Console(highlight=False)
    console.print(sweep_table(points, f"{agent.model.name}, {scheme}, {executor} executor"))
    if any(point.same != point.n_queries for point in points):
        raise InputError("output must be the same with and without drafts; it was not")
    best = max(points, key=lambda point: point.speedup)
    console.print(
        f"fastest: width {best.beam_width}, length {best.draft_len}: {best.speedup:.2f} times in "
        f"writing, {best.request_speedup:.2f} with reading; {best.tokens_per_step:.2f} tokens per "
        f"step, {100 * best.tokens_per_step / best.cap:.0f} % of the {best.cap:.2f} that these "
        "short answers allow",
        soft_wrap=True,
    )
