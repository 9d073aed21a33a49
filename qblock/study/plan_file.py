"""Plans as TOML files.

name = "sizes"
seeds = 20                            # 0 ... 19, or a list of seeds
time_limits = [0.1, 1.0]              # seconds, asked of every backend

[[instances]]
source = "smollm2-135m-fisher"               # bundled, or a file beside the plan
remove = [4, 8]                       # or { attention = 2, moe = 3 }

[[instances]]
generate = { kind = "lowrank", n = 40, seed = 1 }
remove = 10

[[backends]]
name = "annealing"
parameters = { beta_range = "objective" }
grid = { num_reads = [10, 100] }      # every combination
"""

import importlib.resources
import inspect
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qblock.errors import ParameterError, QblockError, StudyError
from qblock.files import bundled_instances, load_sensitivity
from qblock.generators import random_instance
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.study.contender import Contender
from qblock.study.plan import Plan
from qblock.study.store import open_study
from qblock.study.tune import tuning_statements

Remove = int | dict[str, int]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Instance(_Table):
    source: str | None = None
    generate: dict[str, Any] | None = None
    remove: Remove | list[Remove]
    keep: list[str] = []
    drop: list[str] = []
    linear: bool = False


class _Backend(_Table):
    name: str
    parameters: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}


class _PlanFile(_Table):
    instances: list[_Instance] = Field(min_length=1)
    backends: list[_Backend] = Field(min_length=1)
    name: str | None = None
    seeds: int | list[int] = 10
    time_limits: list[float] = []
    reference_seconds: float = 60.0
    hard_limit: float = 3600.0
    memory_gib: float | None = Field(None, gt=0)
    cloud_concurrency: int = 1
    tuning_study: str | None = None


LIBRARY = Path(str(importlib.resources.files("qblock") / "instances" / "library.toml"))
"""The benchmark that comes with qblock, as a plan."""


def load_plan(path: str | Path) -> Plan:
    """Read a plan and check it whole: backends, parameters, instances, budgets.

    The name "library" stands for the bundled benchmark.

    Raises:
        StudyError: one line with the file, the place in it and what is wrong there.
    """
    path = LIBRARY if str(path) == "library" else Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        table = _PlanFile.model_validate(content)
    except OSError as error:
        raise StudyError(f"cannot read the plan {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise StudyError(f"{path}: {_first_problem(error)}") from None
    try:
        problems = tuple(_problems(table, path.parent))
        tuning = Plan.tuning
        if table.tuning_study is not None:
            with open_study(path.parent / table.tuning_study) as store:
                tuning = "; ".join(tuning_statements(store, problems))
        return Plan(
            problems=problems,
            contenders=tuple(_contenders(table)),
            seeds=tuple(range(table.seeds) if isinstance(table.seeds, int) else table.seeds),
            time_limits=tuple(table.time_limits) or (None,),
            name=table.name or path.stem,
            reference_seconds=table.reference_seconds,
            hard_limit=table.hard_limit,
            memory_limit=None if table.memory_gib is None else int(table.memory_gib * 2**30),
            cloud_concurrency=table.cloud_concurrency,
            tuning=tuning,
        )
    except QblockError as error:
        raise StudyError(f"{path}: {error}") from None


def _first_problem(error: ValidationError) -> str:
    # A misspelt key is both unknown and missing; the first is the mistake.
    item = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        model: type[BaseModel] = _PlanFile
        if len(item["loc"]) > 1:
            model = _Instance if item["loc"][0] == "instances" else _Backend
        return f"unknown key {place!r}; expected one of {', '.join(model.model_fields)}"
    return f"{place}: {item['msg']}"


def _problems(table: _PlanFile, folder: Path) -> Iterator[BlockRemovalProblem]:
    for number, instance in enumerate(table.instances):
        where = f"instances.{number}"
        if (instance.source is None) == (instance.generate is None):
            raise StudyError(f"{where}: give either source or generate")
        try:
            if instance.generate is not None:
                sensitivity = generated(instance.generate)
            else:
                sensitivity = load_sensitivity(_beside(folder, instance.source or ""))
            budgets = instance.remove if isinstance(instance.remove, list) else [instance.remove]
            for remove in budgets:
                yield BlockRemovalProblem(
                    sensitivity, remove, instance.keep, instance.drop, instance.linear
                )
        except QblockError as error:
            raise StudyError(f"{where}: {error}") from None


def _beside(folder: Path, source: str) -> str | Path:
    return source if source in bundled_instances() else folder / source


def generated(arguments: Mapping[str, Any]) -> Sensitivity:
    """An instance from `qblock.generators.random_instance`, its arguments checked by name."""
    signature = inspect.signature(random_instance)
    try:
        signature.bind(**arguments)
        return random_instance(**arguments)
    except TypeError as error:
        raise ParameterError(
            f"generate: {error}; it takes {', '.join(signature.parameters)}"
        ) from None


def _contenders(table: _PlanFile) -> Iterator[Contender]:
    for number, backend in enumerate(table.backends):
        both = set(backend.parameters) & set(backend.grid)
        if both:
            raise StudyError(f"backends.{number}: {min(both)!r} is in parameters and in grid")
        for contender in contender_grid(backend.name, backend.parameters, backend.grid):
            try:
                contender.settings  # noqa: B018  # checks the backend and its parameters
            except QblockError as error:
                raise StudyError(f"backends.{number}: {error}") from None
            yield contender


def contender_grid(
    name: str, parameters: Mapping[str, Any], grid: Mapping[str, list[Any]]
) -> Iterator[Contender]:
    """One contender for every combination of the grid's values."""
    for values in itertools.product(*grid.values()):
        yield Contender(name, {**parameters, **dict(zip(grid, values, strict=True))})
