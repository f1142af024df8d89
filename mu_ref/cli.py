"""`mu-ref` at the command line; commands with much to say stand in `cli_*.py`.

Exit codes: 0 done, 2 a mistake in what was asked for (one line says which), 130 interrupted.
"""

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.cli_quantize import quantize
from mu_ref.cli_redrafter import (
    DrafterOption,
    LengthOption,
    WidthOption,
    draft_sweep,
    drafting,
    generate,
    quantize_drafter,
    train_drafter,
)
from mu_ref.command_line import run_app
from mu_ref.errors import InputError, MuRefError, check_choice

__all__ = ["app", "main"]

app = typer.Typer(
    help="A readable reference of Microsoft's Mu, run by many executors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
settings_app = typer.Typer(help="The Settings agent.", no_args_is_help=True)
app.add_typer(settings_app, name="settings")
app.command()(quantize)
app.command()(generate)
app.command("train-drafter")(train_drafter)
app.command("quantize-drafter")(quantize_drafter)
app.command("draft-sweep")(draft_sweep)

WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weight file from `mu-ref train`; the shipped one by default."),
]
ExecutorOption = Annotated[
    str, typer.Option(help="reference (NumPy) or fast (compiled kernels, the same answers).")
]
SchemeOption = Annotated[str, typer.Option(help="Arithmetic: float32, w8a16, w8a8 or w4a16.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def main() -> NoReturn:
    """Run the program."""
    run_app(app, (MuRefError,))


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


@app.command()
def ask(
    query: Annotated[str, typer.Argument(help="What you want changed, in plain English.")],
    npu: Annotated[
        str | None, typer.Option(help="Also simulate this NPU; `npu-sim hardware list`.")
    ] = None,
    npu_model: Annotated[
        str, typer.Option(help="Preset whose shape the NPU is simulated for.")
    ] = "mu-330m",
    budget_ms: Annotated[float, typer.Option(help="Latency budget of the NPU, ms.")] = 500.0,
    execute: Annotated[
        bool, typer.Option("--execute", help="Let the NPU compute the answer, piece by piece.")
    ] = False,
    weights: WeightsOption = None,
    scheme: SchemeOption = "float32",
    executor: ExecutorOption = "reference",
    drafter: DrafterOption = None,
    beam_width: WidthOption = 1,
    draft_len: LengthOption = 6,
    as_json: JsonOption = False,
) -> None:
    """Answer one Settings query with a call, and price the answer on an NPU."""
    from mu_ref.presets import preset

    shape = preset(npu_model)  # a wrong name must fail before any work
    if npu is not None:
        _find_npu(npu)
    if execute and (npu is None or drafter is not None or scheme not in ("w8a16", "w8a8")):
        raise InputError(
            "--execute must have an --npu and --scheme w8a16 or w8a8, and no --drafter: the NPU "
            f"computes integers; got --npu {npu}, --scheme {scheme}, --drafter {drafter}"
        )
    agent = drafting(weights, scheme, executor, drafter, beam_width, draft_len)
    answer = agent.ask([query])[0]
    total_s = answer.encode_s + answer.decode_s
    call = answer.call
    setting = None if call.verb == "none" else agent.catalog.lookup(call.setting_id)
    facts: dict[str, Any] = {
        "call": str(call),
        "title": setting.title if setting else None,
        "uri": setting.uri if setting else None,
        "input_tokens": answer.n_input,
        "output_tokens": answer.n_output,
        "tokens_per_s": answer.n_output / total_s if total_s else None,
        "complaint": answer.complaint,
    }
    report = None
    if npu is not None and answer.n_output:
        report = _simulate(shape, npu, answer.n_input, answer.n_output, budget_ms)
        facts["npu"] = report.to_json()
    executed = None
    if execute and npu is not None and answer.n_output:
        executed = _execute(agent, query, answer, npu)
        facts["executed"] = executed
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{_escape(str(call))}[/bold]")
    if answer.complaint:
        console.print(f"  {_escape(answer.complaint)}", soft_wrap=True)
    elif setting is None:
        console.print("  nothing in the catalog serves this")
    else:
        console.print(f"  {_escape(setting.title)}   {setting.uri}")
    if not answer.n_output:
        return
    console.print(
        f"  {answer.n_input} tokens in, {answer.n_output} out, {facts['tokens_per_s']:.0f} tokens/s"
        f" ({agent.model.name}, {executor} {scheme}, {1000 * total_s:.0f} ms)"
    )
    if report is not None:
        console.print(f"\n{shape.name} on {npu}, simulated:")
        for name, value in report.summary_rows():
            console.print(f"  {name:<22} {value}")
    if executed is not None:
        console.print(
            f"\n{agent.model.name} computed on {npu}: {executed['products']:,} products in "
            f"{executed['pieces']:,} pieces gave the same {len(executed['tokens'])} tokens; "
            f"that run took {executed['latency_ms']:.3g} ms, simulated"
        )


def _execute(agent: Any, query: str, answer: Any, npu: str) -> dict[str, Any]:
    """Compute the answer on the simulated NPU; it must be the answer given."""
    import numpy as np

    from npu_sim.errors import NpuSimError
    from npu_sim.execute import execute
    from npu_sim.hardware import npu as find_npu

    source = np.array([agent.source_tokens(query)])
    valid = np.ones(source.shape, bool)
    chip = find_npu(npu)
    try:
        found = execute(agent.ops.model, source, valid, chip, answer.n_output)
    except NpuSimError as error:
        raise InputError(str(error)) from error
    if found.tokens != list(answer.tokens):
        raise AssertionError(f"the NPU wrote {found.tokens}, the executor {answer.tokens}")
    return {
        "products": found.n_products,
        "pieces": found.n_pieces,
        "tokens": found.tokens,
        "latency_ms": 1000 * found.run.cycles / chip.clock_hz,
    }


def _find_npu(name: str) -> None:
    from npu_sim.errors import NpuSimError
    from npu_sim.hardware import npu as find_npu

    try:
        find_npu(name)
    except NpuSimError as error:
        raise InputError(str(error)) from error


def _simulate(shape: Any, npu: str, n_input: int, n_output: int, budget_ms: float) -> Any:
    from npu_sim.errors import NpuSimError
    from npu_sim.program import Precision
    from npu_sim.report import simulate_request

    try:
        return simulate_request(shape, npu, n_input, n_output, Precision(), budget_ms=budget_ms)
    except NpuSimError as error:
        raise InputError(str(error)) from error


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")],
    as_json: JsonOption = False,
) -> None:
    """Print a preset: its fields, parameters, split and bytes."""
    from mu_ref.presets import field_origins, preset
    from mu_ref.weights import count_parameters

    config = preset(name)
    total = count_parameters(config)
    stacks = {s: count_parameters(config, f"{s}.") for s in config.stacks}
    layers = sum(stacks.values())
    shares = {s: n / layers for s, n in stacks.items()}
    if as_json:
        data = {
            "parameters": total,
            "by_stack": stacks,
            "share": shares,
            "config": json.loads(config.to_json()),
            "origins": field_origins(name),
        }
        typer.echo(json.dumps(data))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{config.name}[/bold]: {total:,} parameters")
    for stack, n in stacks.items():
        console.print(f"  {stack}: {n:,} ({100 * shares[stack]:.1f} % of the layers)")
    console.print(f"  embeddings and head: {total - layers:,}")
    widths = {"float32": 4, "float16": 2, "int8": 1, "int4": 0.5}
    sizes = ", ".join(f"{kind} {total * size / 1e6:,.1f} MB" for kind, size in widths.items())
    console.print(f"  bytes: {sizes}\n")
    console.print(_field_table(json.loads(config.to_json()), field_origins(name)))


def _field_table(data: dict[str, Any], origins: dict[str, str]) -> Table:
    stacks = {name: data[name] for name in ("encoder", "decoder") if data[name] is not None}
    table = Table("field", *stacks, "origin")
    for field, value in data.items():
        if field not in ("encoder", "decoder"):
            table.add_row(field, _shown(value), *[""] * (len(stacks) - 1), origins[field])
    table.add_section()
    for field in next(iter(stacks.values())):
        values = (_shown(stack[field]) for stack in stacks.values())
        table.add_row(field, *values, origins[field])
    return table


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"{sum(value)} of {len(value)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command()
def forward(
    folder: Annotated[Path, typer.Argument(help="Holds config.json and model.safetensors.")],
    inputs: Annotated[Path, typer.Option(help="npz with the token ids.")],
    out: Annotated[Path, typer.Option(help="npz to write.")],
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float32",
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Greedy tokens after the start.")] = 12,
) -> None:
    """Run another project's checkpoint (Mu's public code, T5Gemma) on given token ids."""
    import numpy as np

    from mu_ref.forward import forward_file

    kinds = {"float64": np.float64, "float32": np.float32}
    shapes = forward_file(
        folder, inputs, out, kinds[check_choice("dtype", dtype, kinds)], max_new_tokens
    )
    for name, shape in shapes.items():
        typer.echo(f"{name} {list(shape)}")


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    out: Annotated[Path, typer.Option(help="Weight file to write at the end.")] = Path(
        "runs/mu-nano.safetensors"
    ),
    queries: Annotated[
        Path | None, typer.Option(help="Labelled queries, JSON lines; the shipped ones by default.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 18,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Weight file to start from; by default random weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue from the checkpoint beside --out.")
    ] = False,
) -> None:
    """Train a model on labelled Settings queries; interrupt it and --resume as you like."""
    from mu_ref.settings.train import train_agent
    from mu_ref.training.trainer import TrainConfig

    config = TrainConfig(epochs=epochs, batch_size=batch_size, peak_rate=rate, seed=seed)
    console = Console(highlight=False)
    train_agent(name, queries, config, out, start=start, resume=resume, console=console)


@app.command("warm-up")
def warm_up() -> None:
    """Compile the kernels of the fast executors ahead of their first use."""
    from mu_ref.warm_up import compile_once

    for kind in ("float", "integer"):
        seconds = compile_once(Console(stderr=True), kind)
        typer.echo(f"{kind}: " + (f"compiled in {seconds:.0f} s" if seconds else "was ready"))


@settings_app.command("eval")
def settings_eval(
    file: Annotated[Path, typer.Argument(help="Labelled queries, JSON lines.")],
    weights: WeightsOption = None,
    scheme: SchemeOption = "float32",
    executor: ExecutorOption = "reference",
    worst: Annotated[int, typer.Option(min=0, help="How many confusions to list.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Score the agent on labelled queries."""
    from mu_ref.settings.agent import answer_all, load_agent, score
    from mu_ref.settings.queries import read_queries

    agent, items = load_agent(weights, scheme, executor), read_queries(file)
    result = score(agent, items, answer_all(agent, items, Console(stderr=True)))
    if result.invalid_expected:
        Console(stderr=True).print(
            f"warning: {result.invalid_expected} expected calls in {file} are not in the grammar"
        )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    for field, value in result.to_json().items():
        typer.echo(f"{field:<15} {value if field == 'n' else f'{value:.4f}'}")
    if worst and result.confusions:
        typer.echo("\nexpected -> answered (count)")
        for expected, answered, count in result.confusions[:worst]:
            typer.echo(f"  {expected} -> {answered} ({count})")


if __name__ == "__main__":
    main()
