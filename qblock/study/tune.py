"""Tuning a backend's parameters by Optuna, on instances apart from those of the comparison."""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qblock.errors import ParameterError, StudyError
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.study.contender import Contender
from qblock.study.execute import Workers, execute
from qblock.study.judge import judge
from qblock.study.plan import Plan
from qblock.study.statistics import TARGET
from qblock.study.store import Store

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Range:
    """Values that a parameter may take: between two numbers, or one of several.

    Attributes:
        low, high: inclusive ends of a range of whole numbers or, if one is a float, of reals;
            searched on a logarithmic scale if `low` is positive.
        choices: the values, if it is not a range.
    """

    low: float = 0
    high: float = 0
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Range":
        """From "LOW..HIGH" or "A|B|C"; values are JSON if they parse as such."""
        if ".." not in text:
            return cls(choices=tuple(_value(part) for part in text.split("|")))
        low, high = (_value(part) for part in text.split("..", 1))
        numbers = all(isinstance(end, int | float) for end in (low, high))
        if not numbers or low >= high:
            raise ParameterError(f"range {text!r}: expected LOW..HIGH, or choices A|B|C")
        return cls(low, high)

    def suggest(self, trial: "optuna.Trial", name: str) -> Any:
        """A value for this trial."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.low > 0)
        return trial.suggest_float(name, self.low, self.high, log=self.low > 0)


@dataclass(frozen=True)
class Tuned:
    """What tuning came to: the best contender, its score, and a sentence for the report."""

    contender: Contender
    score: float
    statement: str


def tune(
    backend: str,
    ranges: Mapping[str, Range],
    problems: Sequence[BlockRemovalProblem],
    *,
    trials: int,
    store: Store,
    workers: Workers,
    repeats: int = 5,
    time_limit: float | None = None,
    seed: int = 0,
) -> Tuned:
    """Search parameters that minimise the time to solution on the tuning problems.

    The score is the mean over the problems of log10 TTS with p = (successes + 1/2) / (runs + 1),
    which is finite without a success, plus the mean gap, which then leads the search. All runs
    are kept in `store`; the same call finds them again.

    Raises:
        StudyError: optuna is not installed.
        ParameterError: a range of a parameter that the backend does not have.
    """
    if importlib.util.find_spec("optuna") is None:
        raise StudyError('tuning needs optuna: pip install "qblock[tune]"')
    import optuna

    known = get_backend(backend).Parameters.model_fields
    for name in ranges:
        if name not in known:
            raise ParameterError(
                f"backend {backend!r} has no parameter {name!r} (it takes: {', '.join(known)})"
            )
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def score_of(trial: "optuna.Trial") -> float:
        values = {name: values.suggest(trial, name) for name, values in ranges.items()}
        plan = Plan(
            problems=tuple(problems),
            contenders=(Contender(backend, values),),
            seeds=tuple(range(repeats)),
            time_limits=(time_limit,),
            name=f"tuning of {backend}",
        )
        if execute(plan, store, workers).interrupted:
            raise KeyboardInterrupt
        return _score(store, plan)

    search = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    search.optimize(score_of, n_trials=trials)
    best = Contender(backend, search.best_params)
    names = ", ".join(sorted({problem.sensitivity.name for problem in problems}))
    statement = (
        f"{best} was tuned by {trials} trials of Optuna's TPE (seed {seed}) on {names}, "
        f"{repeats} runs each"
    )
    store.add_plan({"name": f"tuning of {backend}", "tuned": statement}, [])
    return Tuned(best, search.best_value, statement)


def tuning_statements(store: Store, problems: Sequence[BlockRemovalProblem]) -> tuple[str, ...]:
    """What a tuning study says was tuned, for a plan that compares on `problems`.

    Raises:
        StudyError: a problem was tuned on, so that the comparison would flatter the tuned.
    """
    seen = {np.asarray(store.problem(key).sensitivity.H).tobytes(): store.problem(key)
            for key in store.problem_ids()}  # fmt: skip
    for problem in problems:
        if problem.sensitivity.H.tobytes() in seen:
            raise StudyError(
                f"instance {problem.sensitivity.name!r} was tuned on in {store.path}; compare on "
                "others"
            )
    statements = tuple(str(plan["tuned"]) for plan in store.plans() if "tuned" in plan)
    if not statements:
        raise StudyError(f"{store.path} holds no finished tuning")
    return statements


def _score(store: Store, plan: Plan) -> float:
    scores = []
    keys = list(plan.requests())
    for problem in plan.problems:
        row = judge(store, problem.id, keys).rows[0]
        if row.success is None or row.median_seconds is None:
            return math.inf  # these parameters fail
        p = (row.success.successes + 0.5) / (row.success.trials + 1)
        runs = max(1.0, math.log(1 - TARGET) / math.log1p(-p))
        gaps = [1.0 if gap is None else gap for gap in row.gaps]
        scores.append(math.log10(row.median_seconds * runs) + float(np.mean(gaps)))
    return float(np.mean(scores))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
