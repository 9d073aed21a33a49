"""`qblock study`: many problems, backends, seeds and time limits, in one file."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.errors import ParameterError, StudyError
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem
from qblock.study.contender import Contender
from qblock.study.execute import Workers, available_cores, dask_workers, execute, local_workers
from qblock.study.export import runs_table, samples_table, write_table
from qblock.study.plan import Plan, PlanEstimate, estimate
from qblock.study.plan_file import load_plan
from qblock.study.store import Store, open_study
from qblock.study.tune import Range
from qblock.study.tune import tune as run_tuning

app = typer.Typer(no_args_is_help=True, help="Run, inspect, merge and export studies.")

STATES = ("open", "running", "done", "failed")

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY.db", help="A study file.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Runs at a time; one for each core.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="A running Dask cluster instead."),
]


@app.command("run")
def run(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.toml]", help="A plan; or give the options.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", "-o", help="Study file; PLAN.db if not given.")
    ] = None,
    instance: Annotated[
        list[str] | None, typer.Option("--instance", "-i", help="A problem; repeat for more.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="A budget; repeat for more.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", metavar="NAME[:KEY=VALUE,...]", help="Repeat for more."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each.")] = 10,
    time_limit: Annotated[
        list[float] | None, typer.Option("--time-limit", metavar="SECONDS", help="Repeat for more.")
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    max_qpu_seconds: Annotated[
        float, typer.Option("--max-qpu-seconds", min=0, help="Refuse a plan that may use more.")
    ] = 0.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed runs of the study once more.")
    ] = False,
    only_estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would take, and stop.")
    ] = False,
) -> None:
    """Run a plan, or what is left of it. The same command goes on where it stopped."""
    task = load_plan(plan) if plan else _plan(instance, remove, backend, seeds, time_limit)
    if plan and (instance or remove or backend or time_limit):
        raise StudyError("give either a plan file or --instance, --remove and --backend")
    path = store or (plan.with_suffix(".db").name if plan else "qblock-study.db")
    requests = list(task.requests())
    if only_estimate:
        common.console.print(estimate_text(estimate(requests), workers or available_cores()))
        return
    crew: AbstractContextManager[Workers] = (
        dask_workers(scheduler) if scheduler else local_workers(workers)
    )
    with Store(path) as study, crew as hands:
        study.add_plan(task.document(), requests)
        if retry_failed:
            study.reopen_failed()
        open_keys = study.open_keys()
        todo = estimate([request for request in requests if request.key in open_keys])
        common.messages.print(estimate_text(todo, hands.count))
        if todo.qpu_seconds > max_qpu_seconds:
            raise StudyError(
                f"the plan may use {todo.qpu_seconds:.3g} s of quantum processor time; "
                f"allow that with --max-qpu-seconds {todo.qpu_seconds:.3g}"
            )
        with common.progress_line("study") as report:
            done = execute(task, study, hands, report)
        common.messages.print(
            f"{done.done} runs done, {done.failed} failed, {done.reused} were there; "
            f"next: qblock report {path}"
        )
    for name, message in done.halted.items():
        common.messages.print(f"[yellow]{name} was stopped; its runs stay open:[/yellow] {message}")
    if done.interrupted:
        common.messages.print("interrupted; the same command goes on from here")
        raise typer.Exit(130)


@app.command("tune")
def tune(
    backend: Annotated[str, typer.Option("--backend", "-b", help="What to tune.")],
    ranges: Annotated[
        list[str],
        typer.Option("--range", metavar="KEY=LOW..HIGH | KEY=A|B", help="Repeat for more."),
    ],
    instance: Annotated[
        list[str], typer.Option("--instance", "-i", help="A tuning problem; repeat for more.")
    ],
    remove: Annotated[str, typer.Option("--remove", help="How many blocks to remove.")],
    trials: Annotated[int, typer.Option("--trials", min=1)] = 30,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each trial.")] = 5,
    time_limit: common.TimeLimitOption = None,
    store: Annotated[Path, typer.Option("--store", "-o", help="Study file.")] = Path("tune.db"),
    workers: WorkersOption = None,
) -> None:
    """Tune a backend's parameters on instances that the comparison will not use."""
    space = {}
    for text in ranges:
        key, equals, values = text.partition("=")
        if not equals:
            raise ParameterError(f"--range {text!r}: expected KEY=LOW..HIGH or KEY=A|B")
        space[key] = Range.parse(values)
    problems = [common.make_problem(load_sensitivity(name), remove) for name in instance]
    with Store(store) as study, local_workers(workers) as hands:
        tuned = run_tuning(
            backend, space, problems, trials=trials, store=study, workers=hands,
            repeats=seeds, time_limit=time_limit,
        )  # fmt: skip
    common.console.print(f"{tuned.statement}\n\nIn a plan on other instances:\n")
    settings = ", ".join(f"{k} = {json.dumps(v)}" for k, v in tuned.contender.parameters.items())
    print(f'tuning_study = "{store}"\n\n[[backends]]\nname = "{backend}"')
    print(f"parameters = {{ {settings} }}")


@app.command("status")
def status(study: StudyArgument, as_json: common.JsonOption = False) -> None:
    """Say how far a study is."""
    with open_study(study) as store:
        runs = store.runs()
    groups: dict[str, dict[str, int]] = {}
    for record in runs:
        states = groups.setdefault(record.contender, dict.fromkeys(STATES, 0))
        states[record.state] += 1
    if as_json:
        common.print_json([{"contender": name, **states} for name, states in groups.items()])
        return
    table = Table(title=str(study))
    for column in ("contender", *STATES):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, states in groups.items():
        table.add_row(name, *(str(count) for count in states.values()))
    common.console.print(table)


@app.command("merge")
def merge(
    target: StudyArgument,
    sources: Annotated[list[Path], typer.Argument(metavar="OTHER.db...", help="Studies to add.")],
) -> None:
    """Add the runs of other studies to one; runs that it has already are kept as they are."""
    with Store(target) as store:
        for source in sources:
            common.messages.print(f"{store.merge(source)} runs from {source}")


@app.command("export")
def export(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .csv or .parquet file.")],
    what: Annotated[
        Literal["runs", "samples"], typer.Option("--table", help="Which table.")
    ] = "runs",
) -> None:
    """Write the runs, or all their samples, as one table."""
    with open_study(study) as store:
        rows = runs_table(store) if what == "runs" else samples_table(store)
    write_table(rows, output)
    common.messages.print(f"{len(rows)} rows in {output}")


def estimate_text(answer: PlanEstimate, workers: int) -> str:
    """An estimate in words."""
    seconds = answer.seconds / workers
    text = f"{answer.runs} runs to do: about {seconds:.3g} s on {workers} workers"
    if answer.unknown:
        text += f", and as long as these take: {', '.join(answer.unknown)}"
    if answer.qpu_seconds:
        text += f"; up to {answer.qpu_seconds:.3g} s of quantum processor time"
    return "\n".join([text, *answer.notes])


def _plan(
    instances: list[str] | None,
    budgets: list[str] | None,
    backends: list[str] | None,
    seeds: int,
    time_limits: list[float] | None,
) -> Plan:
    for option, values in (("instance", instances), ("remove", budgets), ("backend", backends)):
        if not values:
            raise StudyError(f"give a plan file, or at least one --{option}")
    problems: list[BlockRemovalProblem] = []
    for name in instances or []:
        sensitivity = load_sensitivity(name)
        problems += [common.make_problem(sensitivity, budget) for budget in budgets or []]
    limits: tuple[Any, ...] = tuple(time_limits or [None])
    return Plan(
        problems=tuple(problems),
        contenders=tuple(Contender.parse(text) for text in backends or []),
        seeds=tuple(range(seeds)),
        time_limits=limits,
    )
