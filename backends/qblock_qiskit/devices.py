"""Where circuits run: simulators, noise models of published devices, and IBM hardware.

Names: "statevector" (Qiskit's reference), "aer" and "aer-gpu" (Aer state vector), "mps" (Aer
matrix product state), "noisy:NAME" (Aer with the noise and the map of a fake backend of
qiskit-ibm-runtime, such as noisy:manila), "ibm:NAME" (hardware; never used unless named).
"""

import difflib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from qblock.backend import Availability, Run
from qblock.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailable,
    CapacityError,
    ParameterError,
    SolverTimeout,
)
from qblock.problem import FloatArray, IntArray, States
from qblock_qiskit.circuits import BASIS

DeviceName = str
IbmMode = Literal["batch", "session"]

LARGEST = {"statevector": 20, "aer": 28, "aer-gpu": 31, "mps": 100, "noisy": 20, "ibm": 156}
"""Qubits that a device of each kind can take, by memory (noisy: by time)."""

IBM_ACCOUNT = (
    'save one with qiskit_ibm_runtime.QiskitRuntimeService.save_account(token="...") '
    "or set QISKIT_IBM_TOKEN"
)


@dataclass
class Device:
    """An open device.

    Attributes:
        name: as asked for.
        pass_manager: transpiles a circuit for it.
        sampler: a Qiskit SamplerV2.
        wait_seconds: spent in the cloud so far: network, queue and execution.
        jobs: identifiers of the jobs submitted to a cloud.
    """

    name: DeviceName
    pass_manager: Any
    sampler: Any
    wait_seconds: float = 0.0
    jobs: list[str] = field(default_factory=list)

    @property
    def remote(self) -> bool:
        return self.name.startswith("ibm:")

    def transpile(self, circuit: Any) -> Any:
        """The circuit with measurements of all its qubits, in the device's gates and map."""
        return self.pass_manager.run(circuit.measure_all(inplace=False))

    def sample(
        self, transpiled: Any, angles: FloatArray, shots: int, run: Run
    ) -> tuple[States, IntArray]:
        """Distinct measured states int8 (S, n), ascending, and how often each came (S,).

        Raises:
            SolverTimeout: a cloud did not answer in time; the message names the job, which is
                not lost.
            BackendError: the cloud failed.
        """
        started = time.perf_counter()
        job = self.sampler.run([(transpiled, angles)], shots=shots)
        if self.remote:
            self.jobs.append(job.job_id())
            result = self._remote_result(job, run)
            self.wait_seconds += time.perf_counter() - started
        else:
            result = job.result()
        counts = sorted(result[0].data.meas.get_counts().items())
        states = np.array([[int(bit) for bit in bits[::-1]] for bits, _ in counts], dtype=np.int8)
        return states, np.array([count for _, count in counts], dtype=np.int64)

    def _remote_result(self, job: Any, run: Run) -> Any:
        limit = None if run.time_limit is None else max(run.remaining(), 1.0)
        kept = f"job {job.job_id()} of {self.name} is kept: QiskitRuntimeService().job(...)"
        try:
            return job.result() if limit is None else job.result(timeout=limit)
        except Exception as error:
            if "timeout" in type(error).__name__.lower():
                raise SolverTimeout(f"no answer within {run.time_limit} s; {kept}") from None
            raise BackendError(f"{self.name} failed ({type(error).__name__}); {kept}") from None


def check_name(name: DeviceName) -> DeviceName:
    """The name, if it has a known form.

    Raises:
        ValueError: it has not (pydantic reports it as a bad parameter).
    """
    kind, _, rest = name.partition(":")
    plain = ("exact", "statevector", "aer", "aer-gpu", "mps")
    if (kind in plain and not rest and ":" not in name) or (kind in ("noisy", "ibm") and rest):
        return name
    raise ValueError(f"expected one of {', '.join(plain)}, noisy:<fake backend>, ibm:<backend>")


def availability() -> Availability:
    """Whether the packages of the extra are installed."""
    for module in ("qiskit", "qiskit_aer", "qiskit_ibm_runtime"):
        state = Availability.of_extra(module, "qiskit")
        if not state.ok:
            return state
    return state


def check_capacity(name: DeviceName, qubits: int) -> None:
    """Raise `CapacityError` if a circuit of so many qubits does not fit the device."""
    kind = name.partition(":")[0]
    if kind in LARGEST and qubits > LARGEST[kind]:
        fits = [f"device={other}" for other, most in LARGEST.items() if qubits <= most]
        fits = [name for name in fits if name not in ("device=ibm", "device=aer-gpu")]
        raise CapacityError(
            f"{qubits} qubits do not fit device={name} (at most {LARGEST[kind]}). What would: "
            + ", ".join([*fits, "qaoa-fixed-weight with device=exact", "pins from `qblock reduce`"])
        )


def fake_backend(name: str) -> Any:
    """The fake backend of this name (such as "manila" or "torino").

    Raises:
        ParameterError: there is none; the message names close ones.
    """
    from qiskit_ibm_runtime import fake_provider

    known = {
        attribute.removeprefix("Fake").removesuffix("V2").lower(): attribute
        for attribute in sorted(dir(fake_provider))  # "...V2" comes after, and wins
        if attribute.startswith("Fake") and "Provider" not in attribute
    }
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), known, n=3) or sorted(known)
        raise ParameterError(f"no fake backend {name!r}; there are {', '.join(close)}")
    return getattr(fake_provider, known[name.lower()])()


def connect(name: str) -> Any:
    """The IBM backend of this name, through the user's saved account or environment.

    Raises:
        AuthenticationError: no account, or the token was refused; never shows the token.
        BackendUnavailable: the account has no such backend, or the service is out of reach.
    """
    from qiskit.providers.exceptions import QiskitBackendNotFoundError
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts.exceptions import AccountsError
    from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

    try:
        return QiskitRuntimeService().backend(name)
    except (AccountsError, IBMNotAuthorizedError) as error:
        raise AuthenticationError(
            f"device=ibm:{name} has no usable account ({type(error).__name__}): {IBM_ACCOUNT}"
        ) from None
    except QiskitBackendNotFoundError:
        raise BackendUnavailable(f"this IBM account has no backend {name!r}") from None
    except Exception as error:  # network errors of several libraries; their text may hold secrets
        raise BackendUnavailable(
            f"IBM Quantum cannot be reached ({type(error).__name__}); check the network and the "
            f"account: {IBM_ACCOUNT}"
        ) from None


def transpile(circuit: Any) -> Any:
    """The circuit in the gates `BASIS` with any two qubits coupled."""
    from qiskit.transpiler import generate_preset_pass_manager

    manager = generate_preset_pass_manager(
        optimization_level=1, basis_gates=list(BASIS), seed_transpiler=0
    )
    return manager.run(circuit)


@contextmanager
def open_device(
    name: DeviceName, qubits: int, *, seed: int, bond_dimension: int, ibm_mode: IbmMode
) -> Iterator[Device]:
    """The device, ready to transpile and sample circuits of so many qubits."""
    from qiskit.transpiler import generate_preset_pass_manager

    kind, _, rest = name.partition(":")
    aer_seed = int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1
    if kind == "ibm":
        with _ibm_device(name, connect(rest), qubits, aer_seed, ibm_mode) as device:
            yield device
    elif kind == "noisy":
        from qiskit_aer import AerSimulator
        from qiskit_aer.primitives import SamplerV2

        target = fake_backend(rest)
        _check_width(name, target, qubits)
        simulator = AerSimulator.from_backend(target)
        manager = generate_preset_pass_manager(
            optimization_level=2, backend=target, seed_transpiler=aer_seed
        )
        yield Device(name, manager, SamplerV2.from_backend(simulator, seed=aer_seed))
    else:
        manager = generate_preset_pass_manager(
            optimization_level=1, basis_gates=list(BASIS), seed_transpiler=aer_seed
        )
        yield Device(name, manager, _local_sampler(name, aer_seed, bond_dimension))


def _local_sampler(name: DeviceName, seed: int, bond_dimension: int) -> Any:
    if name == "statevector":
        from qiskit.primitives import StatevectorSampler

        return StatevectorSampler(seed=seed)
    from qiskit_aer import AerSimulator
    from qiskit_aer.primitives import SamplerV2

    options: dict[str, Any] = {"method": "statevector"}
    if name == "mps":
        options = {
            "method": "matrix_product_state",
            "matrix_product_state_max_bond_dimension": bond_dimension,
        }
    elif name == "aer-gpu":
        if "GPU" not in AerSimulator().available_devices():
            raise BackendUnavailable(
                "device=aer-gpu needs a GPU and Aer's GPU build: pip install qiskit-aer-gpu"
            )
        options["device"] = "GPU"
    return SamplerV2(seed=seed, options={"backend_options": options})


def _check_width(name: DeviceName, target: Any, qubits: int) -> None:
    if qubits > target.num_qubits:
        raise CapacityError(
            f"{qubits} qubits do not fit {name}, which has {target.num_qubits}; pin blocks with "
            "`qblock reduce`, or use a larger device"
        )


@contextmanager
def _ibm_device(
    name: DeviceName, target: Any, qubits: int, seed: int, mode: IbmMode
) -> Iterator[Device]:
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import Batch, Session
    from qiskit_ibm_runtime.executor_sampler import Sampler

    _check_width(name, target, qubits)
    manager = generate_preset_pass_manager(
        optimization_level=3, backend=target, seed_transpiler=seed
    )
    opened = Session(backend=target) if mode == "session" else Batch(backend=target)
    with opened:
        yield Device(name, manager, Sampler(mode=opened))
