import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="(g) Who wins?")

with app.setup:
    import math
    import statistics

    import marimo as mo
    import numpy as np
    import verdicts
    from matplotlib.figure import Figure
    from rich.console import Console

    from qblock import BlockRemovalProblem, Spectrum, get_backend, load_sensitivity
    from qblock.study.compare import compare, comparison_table
    from qblock.study.contender import Contender
    from qblock.study.statistics import Proportion, time_to_solution
    from qblock.study.store import Store


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (g) Who wins? A fair comparison, and how to lie with one

    **After this lesson you can** read a comparison of solvers, say what its numbers rest on, and
    name the choices by which the same runs crown another winner. You need lessons (a), (c), and
    the idea of lesson (e).

    ## 1. A fair start

    All solvers get the same problem (a real one: 30 blocks of a small language model) and the same
    *seeds*. A seed fixes the random numbers of a run, so that anybody can repeat it. The optimum is
    proved by `exact`, so nobody can win by being the best of the losers. This runs now, on your
    computer.
    """)
    return


@app.cell
def _():
    remove, repeats = 4, 20
    return remove, repeats


@app.cell(hide_code=True)
def _(remove, repeats):
    CONTENDERS = {
        "fixed-weight-tabu": "#0072B2",
        "annealing": "#D55E00",
        "annealing:num_reads=1": "#E69F00",
        "annealing:penalty=safe": "#CC79A7",
        "qaoa-fixed-weight:p=1,iterations=20": "#009E73",
        "random": "0.45",
    }
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=remove)
    with Store(":memory:") as _store, mo.status.spinner("running all solvers with all seeds"):
        comparison = compare(
            problem, [Contender.parse(name) for name in CONTENDERS], repeats=repeats, store=_store
        ).comparison
        _records = _store.runs(problem.id)
    reference = comparison.reference
    runs = {
        name: sorted(
            (run for run in _records if run.contender == name and run.purpose == "comparison"),
            key=lambda run: run.seed,
        )
        for name in CONTENDERS
    }
    _console = Console(width=126)
    with _console.capture() as _shown:
        _console.print(comparison_table(comparison))
    mo.vstack(
        [
            mo.plain_text(_shown.get()),
            mo.md(f"""
    - **annealing** tries a hundred times ("reads") in a run and sees the budget as a penalty;
      *num_reads=1* tries once, *penalty=safe* has the heavy weight of lesson (c).
    - **fixed-weight-tabu** swaps blocks and never leaves the budget; **qaoa-fixed-weight** is
      lesson (e), simulated; **random** guesses a thousand times.
    - **gap**: how far above the optimum a run ended; 0 % is the optimum, 100 % is the mean of
      random choices.
    - **success rate**: the share of runs that reached the optimum, and in brackets its exact 95 %
      interval. Few runs say little: even {repeats} of {repeats} is compatible with a solver that
      succeeds {Proportion(repeats, repeats).interval()[0]:.0%} of the time.
    - **TTS**, the *time to solution*: a run of $t$ seconds succeeds with probability $p$. Repeat
      it until one has succeeded with probability 99 %. That takes
      $t \\cdot \\ln 0.01 / \\ln(1 - p)$, and never less than one run.
    """),
        ]
    )
    return CONTENDERS, comparison, problem, reference, runs


@app.cell(hide_code=True)
def _():
    formula_answer = mo.ui.text(
        label="A run takes 2 seconds and succeeds half the time. Its TTS in seconds?"
    )
    return (formula_answer,)


@app.cell(hide_code=True)
def _(formula_answer):
    formula_verdict = verdicts.number(
        formula_answer.value,
        2 * math.log(0.01) / math.log(0.5),
        tolerance=0.02,
        right="6.6 runs of 2 seconds: after seven coins, all tails has a chance below 1 %.",
        hint="2 times ln 0.01 / ln 0.5; in Python `math.log`.",
    )
    mo.vstack([mo.md("### Check yourself"), formula_answer, formula_verdict])
    return (formula_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. The lying machine

    Nothing below is run again. The same runs are only *judged* in another way, and every choice
    on offer has been made in a published comparison:

    - **What counts as success?** The optimum, or anything within some gap of it.
    - **Which time is charged?** All of it; or without the building of the model; or with QAOA's
      search for its angles given away for free, as if somebody had told them.
    - **How many seeds?** Few seeds are quick to run, and lucky.

    Lines are 95 % intervals. An arrow means that no run succeeded: there is only a lower bound.
    """)
    return


@app.cell(hide_code=True)
def _(repeats):
    CLOCKS = {
        "all of it": lambda run: run.timing.total,
        "without building the model": lambda run: run.timing.solve,
        "without the search for angles": lambda run: (
            run.timing.solve / (1 + run.details.get("evaluations", 0))
        ),
    }
    criterion = mo.ui.slider(
        steps=[0, 0.5, 1, 2, 3, 5, 10, 20], value=0, label="success: gap up to (%)",
        show_value=True,
    )  # fmt: skip
    clock = mo.ui.dropdown(list(CLOCKS), value="all of it", label="time charged")
    seeds = mo.ui.slider(1, repeats, 1, value=repeats, label="seeds", show_value=True)
    return CLOCKS, clock, criterion, seeds


@app.cell(hide_code=True)
def _(CLOCKS, reference):
    def judged(some_runs, percent, clock_name):
        """Share of successes and TTS of some runs, under a criterion and a clock."""
        reached = sum(
            run.best is not None and reference.gap(run.best) <= percent / 100 for run in some_runs
        )
        share = Proportion(reached, len(some_runs))
        seconds = statistics.median(CLOCKS[clock_name](run) for run in some_runs)
        return share, time_to_solution(share, seconds)

    def winner_of(judgements):
        """The contender of least TTS, or None if none has succeeded."""
        values = {name: tts.value for name, (_, tts) in judgements.items() if tts.value is not None}
        return min(values, key=values.__getitem__, default=None)

    return judged, winner_of


@app.cell(hide_code=True)
def _(CONTENDERS, clock, criterion, judged, runs, seeds, winner_of):
    judgements = {
        name: judged(own[: seeds.value], criterion.value, clock.value) for name, own in runs.items()
    }
    winner = winner_of(judgements)
    _figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    _shares, _times = _figure.subplots(1, 2, sharey=True)
    for _row, (_name, (_share, _tts)) in enumerate(judgements.items()):
        _colour = CONTENDERS[_name]
        _shares.plot(_share.interval(), [_row, _row], color=_colour)
        _shares.plot(_share.value, _row, "o", color=_colour)
        if _tts.value is None:
            _times.annotate(
                "", (6 * _tts.low, _row), (_tts.low, _row),
                arrowprops={"arrowstyle": "->", "color": _colour},
            )  # fmt: skip
            _times.plot(_tts.low, _row, "|", color=_colour, markersize=12)
        else:
            _times.plot([_tts.low, _tts.high or _tts.value], [_row, _row], color=_colour)
            _times.plot(_tts.value, _row, "*" if _name == winner else "o", color=_colour,
                        markersize=14 if _name == winner else 6)  # fmt: skip
    _shares.set_yticks(range(len(judgements)), list(judgements))
    _shares.invert_yaxis()
    _shares.set(xlabel="share of successful runs", xlim=(-0.03, 1.03))
    _times.set(xscale="log", xlabel="time to solution (s)")
    _times.grid(axis="x", alpha=0.3)
    _figure.suptitle(f"Winner: {winner or 'nobody'}", fontsize=11)
    mo.vstack([mo.hstack([criterion, clock, seeds], justify="start", gap=2), _figure])
    return judgements, winner


@app.cell(hide_code=True)
def _(CONTENDERS):
    bound_answer = mo.ui.dropdown(
        list(CONTENDERS),
        label="Judged fairly (gap 0, all time, all seeds): which contender never succeeds, and so "
        "has only a bound?",
    )
    return (bound_answer,)


@app.cell(hide_code=True)
def _(bound_answer, judged, judgements, runs, winner, winner_of):
    fair = {name: judged(own, 0, "all of it") for name, own in runs.items()}
    honest = winner_of(fair)
    _never = [name for name, (share, _) in fair.items() if not share.successes]
    bound_verdict = verdicts.choice(
        bound_answer.value,
        bound_answer.value if bound_answer.value in _never else "another",
        right=f"Never reached: {', '.join(_never)}. An arrow is not a large number. It is no "
        "number.",
        hint="Put all controls back and look for arrows."
        if _never
        else "In your runs all of them succeed at least once, so none is right. Change `repeats` "
        "to 3 (`marimo edit`) and run again.",
    )
    _qaoa, _annealing = (
        judgements[name][1].value for name in ("qaoa-fixed-weight:p=1,iterations=20", "annealing")
    )
    other_verdict = verdicts.goal(
        winner is not None and winner != honest,
        right=f"Now {winner} wins. Judged fairly it is {honest}.",
        hint=f"{honest} wins. Be more generous about what counts as success: who is fast?",
    )
    qaoa_verdict = verdicts.goal(
        _qaoa is not None and (_annealing is None or _qaoa < _annealing),
        right="All it took was to count less of the time, and less of the goal.",
        hint="Who pays for the search for the angles?",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            bound_answer, bound_verdict,
            mo.md("Make another solver win."),
            other_verdict,
            mo.md("Make QAOA beat `annealing`."),
            qaoa_verdict,
        ]
    )  # fmt: skip
    return bound_verdict, fair, honest, other_verdict, qaoa_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 3. Leaving out failures

    A run may return nothing that keeps the budget. "Over the runs that gave a valid answer" sounds
    harmless. In the table a run without an answer counts as the worst of all, or it is left out.
    """)
    return


@app.cell(hide_code=True)
def _(reference, runs):
    def median_gaps(own):
        """Median gap with failures as the worst, and without them; infinite if none is left."""
        answered = [reference.gap(run.best) for run in own if run.best is not None]
        worst = [math.inf] * (len(own) - len(answered))
        return statistics.median(answered + worst), statistics.median(answered or [math.inf])

    gaps = {name: median_gaps(own) for name, own in runs.items()}

    def _shown(gap):
        return "no answer" if math.isinf(gap) else f"{gap:.1%}"

    _rows = "\n".join(
        f"| `{name}` | {sum(run.best is None for run in runs[name])} of {len(runs[name])} | "
        f"{_shown(counted)} | {_shown(without)} |"
        for name, (counted, without) in gaps.items()
    )
    mo.md(
        "| contender | runs without an answer | median gap, all runs | median gap, failures left "
        f"out |\n|:---|---:|---:|---:|\n{_rows}"
    )
    return (gaps,)


@app.cell(hide_code=True)
def _(CONTENDERS):
    failure_answer = mo.ui.dropdown(
        list(CONTENDERS), label="Whose median gap falls most when its failures are left out?"
    )
    return (failure_answer,)


@app.cell(hide_code=True)
def _(failure_answer, gaps):
    _falls = {
        name: min(counted, 1.0) - without
        for name, (counted, without) in gaps.items()
        if math.isfinite(without)
    }
    most_flattered = max(_falls, key=_falls.__getitem__)
    failure_verdict = verdicts.choice(
        failure_answer.value,
        most_flattered,
        right="It mostly answers nothing, and is then praised for the rest. Count what was asked "
        "for, not what came.",
        hint="Compare the last two columns.",
    )
    mo.vstack([mo.md("### Check yourself"), failure_answer, failure_verdict])
    return failure_verdict, most_flattered


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 4. Never seen is not impossible, and not infinite

    No success in $n$ runs: then $p$ may be 0, or small. The exact 95 % interval of $p$ goes from 0
    to some upper end; with the upper end in the formula one has the *least* TTS that the runs
    allow. There is no greatest. Each run here takes one second.
    """)
    return


@app.cell(hide_code=True)
def _():
    unseen = mo.ui.slider(
        steps=[1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000], value=5,
        label="runs, all without success", show_value=True,
    )  # fmt: skip
    never_answer = mo.ui.text(
        label="20 runs of one second, no success. The least TTS, in seconds? (to within 5 %)"
    )
    return never_answer, unseen


@app.cell(hide_code=True)
def _(never_answer, unseen):
    _counts = np.unique(np.geomspace(1, 1000, 40).astype(int))
    _bounds = [time_to_solution(Proportion(0, int(n)), 1.0).low for n in _counts]
    _here = time_to_solution(Proportion(0, unseen.value), 1.0).low
    never_bound = time_to_solution(Proportion(0, 20), 1.0).low
    _figure = Figure(figsize=(6.5, 3), layout="constrained")
    _axes = _figure.subplots()
    _axes.loglog(_counts, _bounds, color="#0072B2")
    _axes.fill_between(_counts, _bounds, 1e5, color="#56B4E9", alpha=0.3)
    _axes.annotate("all of this is possible", (3, 2e3), color="#0072B2")
    _axes.plot(unseen.value, _here, "o", color="#D55E00")
    _axes.set(xlabel="runs without success", ylabel="TTS (s)", ylim=(0.8, 1e5))
    never_verdict = verdicts.number(
        never_answer.value,
        never_bound,
        tolerance=0.05,
        right="So a solver that was run for ten seconds can never be shown to need an hour: who "
        "wants a strong statement has to run long.",
        hint="Move the slider and read the number.",
    )
    mo.vstack(
        [
            unseen,
            _figure,
            mo.md(
                f"{unseen.value} runs without success: p is at most "
                f"{Proportion(0, unseen.value).interval()[1]:.3g}, so TTS is at least "
                f"**{_here:.3g} s**."
            ),
            mo.md("### Check yourself"),
            never_answer,
            never_verdict,
        ]
    )
    return never_bound, never_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 5. How long is a run?

    TTS depends on how long *you* let a run be. Too short, and it hardly ever succeeds. Too long,
    and it always succeeds, and you measure your own patience: TTS cannot be less than one run.
    Between lies an optimum, and **only the TTS at the optimum says something about a solver**. The
    oldest trick is to find it for one's own solver, and to give the rival a setting from the shelf.

    Two solvers that swap blocks, on the same model with eight blocks to remove. A run takes the
    best of some number of *reads* (independent tries); twenty seeds for each point.
    """)
    return


@app.cell(hide_code=True)
def _():
    READS = (1, 2, 4, 8, 16, 64, 256)
    _harder = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)
    _optimum = get_backend("exact").sample(_harder, k=1).samples.first.energy

    def _run_length(solver, reads):
        """TTS of runs of this many reads."""
        found, seconds = 0, []
        for seed in range(20):
            result = get_backend(solver).sample(_harder, seed=seed, num_reads=reads)
            found += Spectrum.of(_harder, result).energies[0] <= _optimum + 1e-12
            seconds.append(result.timing.total)
        return time_to_solution(Proportion(found, 20), statistics.median(seconds))

    sweeps = {
        solver: [_run_length(solver, reads) for reads in READS]
        for solver in ("fixed-weight-tabu", "fixed-weight-annealing")
    }
    own_reads = mo.ui.slider(steps=READS, value=16, label="reads, tabu", show_value=True)
    rival_reads = mo.ui.slider(steps=READS, value=16, label="reads, annealing", show_value=True)
    return READS, own_reads, rival_reads, sweeps


@app.cell(hide_code=True)
def _(READS, own_reads, rival_reads, sweeps):
    _figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    _axes = _figure.subplots()
    best_tts, chosen_tts = {}, {}
    for (_solver, _points), _reads, _colour in zip(
        sweeps.items(), (own_reads.value, rival_reads.value), ("#0072B2", "#D55E00"), strict=True
    ):
        _known = [(r, tts) for r, tts in zip(READS, _points, strict=True) if tts.value is not None]
        _axes.loglog(
            [r for r, _ in _known], [tts.value for _, tts in _known], "o-", color=_colour,
            label=_solver,
        )  # fmt: skip
        _axes.fill_between(
            [r for r, _ in _known], [tts.low for _, tts in _known],
            [tts.high or tts.value for _, tts in _known], color=_colour, alpha=0.15,
        )  # fmt: skip
        best_tts[_solver] = min(tts.value for _, tts in _known)
        chosen_tts[_solver] = dict(_known)[_reads].value if _reads in dict(_known) else None
        if chosen_tts[_solver] is not None:
            _axes.plot(_reads, chosen_tts[_solver], "s", markersize=11, color=_colour)
    _axes.set(xlabel="reads in a run", ylabel="TTS (s)")
    _axes.legend()
    _tabu, _annealing = chosen_tts.values()
    ratio = None if None in (_tabu, _annealing) else _annealing / _tabu
    honest_ratio = best_tts["fixed-weight-annealing"] / best_tts["fixed-weight-tabu"]
    mo.vstack(
        [
            mo.hstack([own_reads, rival_reads], justify="start", gap=2),
            _figure,
            mo.md(
                (
                    "One of them never succeeds there: only a bound. "
                    if ratio is None
                    else f"At these settings annealing takes **{ratio:.2g} times** as long as "
                    "tabu. "
                )
                + f"Both at their best, it is **{honest_ratio:.2g} times**. Shaded: 95 % intervals."
            ),
        ]
    )
    return honest_ratio, ratio


@app.cell(hide_code=True)
def _(honest_ratio, ratio):
    length_verdict = verdicts.goal(
        ratio is not None and ratio >= 4 * honest_ratio,
        right="Both numbers are measured, nobody has lied about one of them, and the sentence is "
        "false all the same.",
        hint="Give tabu its best number of reads, and annealing one that does it no good.",
    )
    reverse_verdict = verdicts.goal(
        ratio is not None and ratio <= honest_ratio / 4,
        right="The same runs, the opposite headline.",
        hint="Now the other way round.",
    )
    mo.vstack(
        [
            mo.md(
                "### Check yourself\n\nMake annealing look at least four times worse than it is "
                "beside tabu."
            ),
            length_verdict,
            mo.md("Make it look at least four times better."),
            reverse_verdict,
        ]
    )
    return length_verdict, reverse_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 6. A ratio depends on where zero is

    The *approximation ratio*, optimum over energy found, is the usual figure of merit: 1 is
    perfect. But an energy has no natural zero. A QUBO, an Ising model and a model with the penalty
    multiplied out differ by a constant that changes nothing about which state is best. Add a
    constant to every energy and look at the ratios, and at the gaps beside them.
    """)
    return


@app.cell(hide_code=True)
def _():
    shift = mo.ui.slider(
        steps=[-0.99, -0.9, -0.5, 0, 1, 3, 10, 30, 100], value=0,
        label="constant, in units of the optimum", show_value=True,
    )  # fmt: skip
    return (shift,)


@app.cell(hide_code=True)
def _(CONTENDERS, comparison, reference, shift):
    def ratio_at(energy, constant):
        """Approximation ratio after a constant, in units of the optimum, was added."""
        added = constant * reference.energy
        return (reference.energy + added) / (energy + added)

    typical = {
        row.contender: statistics.median(found)
        for row in comparison.rows
        if (found := [energy for energy in row.energies if energy is not None])
    }
    ratios = {name: ratio_at(energy, shift.value) for name, energy in typical.items()}
    _figure = Figure(figsize=(9.5, 3), layout="constrained")
    _ratio, _gap = _figure.subplots(1, 2, sharey=True)
    _colours = [CONTENDERS[name] for name in typical]
    _ratio.barh(list(ratios), list(ratios.values()), color=_colours)
    _ratio.set(xlim=(0, 1.02), xlabel="approximation ratio (1 is perfect)")
    _gap.barh(list(typical), [reference.gap(e) for e in typical.values()], color=_colours)
    _gap.set(xlabel="gap (0 is perfect, 1 is a random choice)")
    _ratio.invert_yaxis()
    mo.vstack(
        [
            shift,
            _figure,
            mo.md(
                f"`random` has a ratio of **{ratios['random']:.3f}** and a gap of "
                f"**{reference.gap(typical['random']):.3f}**. (The median over the runs that gave "
                "an answer: do you see the lie of part 3 in this very picture?)"
            ),
        ]
    )
    return ratio_at, ratios, typical


@app.cell(hide_code=True)
def _():
    ratio_answer = mo.ui.text(
        label="Add 30 times the optimum. Which ratio has `random` now? (to within 1 %)"
    )
    return (ratio_answer,)


@app.cell(hide_code=True)
def _(ratio_answer, ratio_at, ratios, typical):
    ratio_verdict = verdicts.number(
        ratio_answer.value,
        ratio_at(typical["random"], 30),
        right="Guessing has become nearly perfect. The gap, which measures from the optimum and in "
        "units of a random choice, has not moved.",
        hint="Move the slider and read it off.",
    )
    poor_verdict = verdicts.goal(
        ratios["random"] < 0.5,
        right="The same guesses are a catastrophe now.",
        hint="There are two directions to move.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            ratio_answer, ratio_verdict,
            mo.md("Find a constant with which `random` has a ratio below one half."),
            poor_verdict,
        ]
    )  # fmt: skip
    return poor_verdict, ratio_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    Before you believe a comparison, ask:

    - What counted as success, and was the optimum proved?
    - Which time was charged, and who paid for building, queueing, tuning and training?
    - How many runs, which interval, and what became of runs that failed?
    - Was every solver tuned with the same care, and was the run length swept?
    - Is the figure of merit free of constants? Were guessing and a simple local search in the race?

    `qblock report` answers these at its top, because those who ran the study know and readers do
    not.

    ## Exercises

    1. Change `repeats` to 3 and to 60. Which sentences of your conclusions survive?
    2. Change `remove` to 8. QAOA becomes slow (5.9 million arrows): what does that do to a study
       with a time limit? Try `compare(..., time_limit=1.0)`.
    3. Write the most flattering true sentence about QAOA that these runs support, and then the
       sentence that a referee would put in its place.
    4. `qblock compare smollm2-135m-fisher --remove 8 -b fixed-weight-tabu -b annealing` does part 1
       on the command line. Where does it keep the runs, and what happens if you start it again?
    """)
    return


if __name__ == "__main__":
    app.run()
