"""Parameters of the QAOA backends."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qblock.backend import Parameters
from qblock.encoding import PenaltyParameters
from qblock_qiskit.devices import IbmMode, check_name
from qblock_qiskit.optimise import Optimiser
from qblock_qiskit.subspace import Mixer


class QaoaParameters(Parameters):
    """What both backends take."""

    device: Annotated[str, AfterValidator(check_name)] = Field(
        "exact",
        description="what draws the samples: exact, statevector, aer, aer-gpu, mps, "
        "noisy:<fake backend> or ibm:<backend>",
    )
    p: int = Field(3, ge=1, le=100, description="layers", json_schema_extra={"unit": "layers"})
    shots: int = Field(
        1024, ge=1, description="samples drawn", json_schema_extra={"unit": "samples"}
    )
    iterations: int = Field(
        120,
        ge=1,
        description="evaluations of the objective in all",
        json_schema_extra={"unit": "evaluations"},
    )
    optimiser: Optimiser | None = Field(
        None, description="cobyla or spsa; by default spsa on noisy devices, else cobyla"
    )
    train_on: Literal["simulator", "device"] | None = Field(
        None, description="where angles are found; the exact simulator by default, where it fits"
    )
    starts: int = Field(
        8, ge=1, description="linear ramps tried as starts", json_schema_extra={"unit": "starts"}
    )
    angles: tuple[float, ...] = Field(
        (), description="start here instead: p betas, then p gammas, as in a result's details"
    )
    layerwise: bool = Field(True, description="find angles for 1, 2, ... p layers in turn")
    transfer: int = Field(
        0,
        ge=0,
        description="start from angles found with this many fewer removed blocks in each group",
        json_schema_extra={"unit": "blocks"},
    )
    cvar: float = Field(
        1.0, gt=0, le=1, description="minimise the mean of this lowest share of the energies"
    )
    bond_dimension: int = Field(64, ge=1, description="largest bond dimension of device=mps")
    ibm_mode: IbmMode = Field("batch", description="execution mode of ibm: devices")


class PenaltyQaoaParameters(QaoaParameters, PenaltyParameters):
    """And the penalty weight."""


class FixedWeightParameters(QaoaParameters):
    """And the mixer."""

    mixer: Mixer = Field("complete", description="XY gates on a ring or on all pairs of a group")
