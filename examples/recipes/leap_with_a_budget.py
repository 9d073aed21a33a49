"""Run on a D-Wave annealer, and never pay more than you said.

    python leap_with_a_budget.py --budget 0.1            # says what it would cost, sends nothing
    python leap_with_a_budget.py --budget 0.1 --send

The token is read where Ocean reads it: `dwave config create`, or DWAVE_API_TOKEN. A job that was
sent is never lost: run the same line again, or `qblock fetch JOB`, and it is not paid for twice.
"""

import argparse

from qblock import BlockRemovalProblem, QblockError, Spectrum, get_backend, load_sensitivity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", default="smollm2-135m-fisher", help="as for `qblock solve`")
    parser.add_argument("--remove", type=int, default=4)
    parser.add_argument("--reads", type=int, default=200, help="anneals")
    parser.add_argument("--budget", type=float, required=True, help="seconds of QPU time, at most")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait")
    parser.add_argument("--send", action="store_true", help="really send it")
    arguments = parser.parse_args()
    annealer = get_backend("leap-qpu")
    try:
        problem = BlockRemovalProblem(load_sensitivity(arguments.problem), remove=arguments.remove)
        estimate = annealer.estimate(problem, num_reads=arguments.reads)
        print(f"{estimate.qubits} qubits, {estimate.qpu_seconds:.3g} s of QPU time expected")
        for note in estimate.notes:
            print(f"  {note}")
        if not arguments.send:
            print("nothing was sent; add --send")
            return
        result = annealer.sample(
            problem,
            seed=1,  # with the same seed the same job is found again
            time_limit=arguments.patience,
            num_reads=arguments.reads,
            max_qpu_seconds=arguments.budget,
        )
    except QblockError as error:  # says what to do, and names the job if one goes on
        raise SystemExit(str(error)) from None
    spectrum = Spectrum.of(problem, result)
    print(f"job {result.details['job']}: {result.details['qpu_seconds']:.3g} s of QPU time used")
    print(f"{spectrum.feasible_rate:.0%} of the reads remove exactly {arguments.remove} blocks")
    if not len(spectrum):
        return
    optimum = get_backend("exact").sample(problem, k=1).samples.first.energy
    print(f"best energy {spectrum.energies[0]:.6g}, proved optimum {optimum:.6g}")


if __name__ == "__main__":
    main()
