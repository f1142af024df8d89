"""`mu-ref settings`: score the agent, train what judges its calls, and what it is compared with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_ref.border.files import RUNS
from mu_ref.border.ranges import COUNT, EPOCHS, SEED
from mu_ref.border.text import json_text, printable
from mu_ref.cli import options
from mu_ref.command_line import JsonOption, in_range, plain_console
from mu_ref.errors import InputError

if TYPE_CHECKING:
    from mu_ref.settings.evaluate import Evaluation
    from mu_ref.settings.valid.score import Doubt

__all__ = ["settings_baseline", "settings_eval", "train_rank"]


def settings_eval(
    file: Annotated[Path, typer.Argument(help="Labelled queries, JSON lines.")],
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "reference",
    drafter: options.DrafterOption = None,
    decode: options.DecodeOption = "auto",
    candidates: options.CandidatesOption = None,
    rank: options.RankOption = None,
    ways: Annotated[
        bool, typer.Option("--ways", help="Also score every other way to decode and to rank.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Reliability of the probabilities, .png or .svg to write.")
    ] = None,
    worst: Annotated[
        int | None, in_range(options.LISTED, help="Confusions to list, 10 by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score the agent on labelled queries; the best call counts, whatever its probability.

    Example: mu-ref settings eval queries.jsonl --executor fast
    """
    from mu_ref.border.files import check_ending, check_outputs
    from mu_ref.settings.queries.labelled import read_queries
    from mu_ref.settings.valid import score
    from mu_ref.settings.valid.decide import Decider

    if as_json and worst is not None:
        raise InputError("--worst must go without --json, which has the scores alone; leave one")
    decoding = options.decoding(decode, candidates, rank)
    if plot is not None:
        check_ending("--plot", plot, (".png", ".svg"))
        check_outputs({"--plot": plot}, [file])
    items = read_queries(file)
    agent = options.drafting(weights, scheme, executor, drafter, None, None)
    decider = Decider.of(agent, decoding)
    progress = plain_console(stderr=True)
    decisions = score.decide_all(decider, items, progress)
    result, doubt = (
        score.score_decisions(decider, items, decisions),
        score.doubt_of(items, decisions),
    )
    others = score.every_way(decider, items, progress) if ways else {}
    if plot is not None:
        from mu_ref.settings.valid.plot import plot_reliability

        plot_reliability(doubt, plot)
    if result.invalid_expected:
        progress.print(
            f"warning: {result.invalid_expected} expected calls in {printable(str(file))} are not "
            "in the grammar",
            soft_wrap=True,
        )
    if as_json:
        table = {"ways": {name: found.to_json() for name, found in others.items()}} if ways else {}
        typer.echo(json_text(result.to_json() | doubt.to_json() | table))
        return
    _print(result, doubt, others, 10 if worst is None else worst)


def train_rank(
    out: Annotated[Path, typer.Option(help="File of the scorer to write.")] = (
        RUNS / "mu-nano-rank.safetensors"
    ),
    queries: Annotated[
        Path | None, typer.Option(help="Labelled queries, JSON lines; the shipped ones by default.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Scorer to keep; only what joins it with the model is new.")
    ] = None,
    epochs: Annotated[int | None, in_range(EPOCHS, help="Of training, 10 by default.")] = None,
    seed: Annotated[int | None, in_range(SEED, help="Of training, 0 by default.")] = None,
    limit: Annotated[
        int | None, in_range(COUNT, help="Validation queries to fit on; all by default.")
    ] = None,
    weights: options.WeightsOption = None,
    executor: options.ExecutorOption = "fast",
) -> None:
    """Train the linear scorer, and fit its weight and the threshold of doubt on validation.

    Example: mu-ref settings train-rank --out rank.safetensors
    """
    from mu_ref.border.files import check_outputs
    from mu_ref.settings.agent import load_agent
    from mu_ref.settings.train import training_queries
    from mu_ref.settings.valid.train_rank import VALIDATION, train_rank

    if start is not None:
        options.check_unused(
            "with --start", {"--queries": queries, "--epochs": epochs, "--seed": seed}
        )
    files = training_queries(None if queries is None else [queries])
    own = options.files_of_agent(weights).values()
    check_outputs({"--out": out}, [*files.values(), start, VALIDATION, *own])
    agent = load_agent(weights, "float32", executor)
    train_rank(
        agent, queries, out, options.report_console(out),
        start=start, epochs=epochs, seed=seed or 0, limit=limit,
    )  # fmt: skip


def settings_baseline(
    file: Annotated[Path, typer.Argument(help="Labelled queries, JSON lines.")],
    queries: Annotated[
        Path | None, typer.Option(help="Labelled queries to train on; the shipped ones by default.")
    ] = None,
    weights: options.WeightsOption = None,
    executor: options.ExecutorOption = "reference",
    as_json: JsonOption = False,
) -> None:
    """Train a TF-IDF and linear SVM on the agent's training files, and score both.

    Example: mu-ref settings baseline queries.jsonl --executor fast
    """
    from mu_ref.settings.agent import load_agent
    from mu_ref.settings.evaluate import evaluate
    from mu_ref.settings.queries.labelled import read_queries
    from mu_ref.settings.valid import score
    from mu_ref.settings.valid.baseline import baseline_calls
    from mu_ref.settings.valid.decide import Decider
    from mu_ref.settings.valid.train_rank import training_items

    items = read_queries(file)
    decider = Decider.of(load_agent(weights, "float32", executor))
    catalog = decider.agent.catalog
    calls = baseline_calls(training_items(queries), [item.query for item in items], catalog)
    decisions = score.decide_all(decider, items, plain_console(stderr=True))
    found = {
        "linear SVM": evaluate([item.call for item in items], calls, catalog),
        "agent": score.score_decisions(decider, items, decisions),
    }
    if as_json:
        typer.echo(json_text({name: way.to_json() for name, way in found.items()}))
    else:
        _print_ways(found)


def _print_ways(ways: "dict[str, Evaluation]") -> None:
    typer.echo("way            exact   setting_id  none_recall  none_precision")
    for name, way in ways.items():
        typer.echo(f"{name:<14} {way.exact:.4f}  {way.setting_id:.4f}      "
                   f"{way.none_recall:.4f}       {way.none_precision:.4f}")  # fmt: skip


def _print(
    result: "Evaluation", doubt: "Doubt", others: "dict[str, Evaluation]", n_worst: int
) -> None:
    for field, value in (result.to_json() | doubt.to_json()).items():
        typer.echo(f"{field:<17} {value if field == 'n' else f'{value:.4f}'}")
    if others:
        typer.echo("")
        _print_ways(others)
    shown = result.confusions[:n_worst]
    if shown:
        typer.echo("\nexpected -> answered (count)")
        for expected, answered, count in shown:
            typer.echo(f"  {printable(expected)} -> {printable(answered)} ({count})")
