"""Every error that qblock raises on purpose.

Each message says what happened, what was expected and what to do next. The command line
prints the message alone and leaves with `exit_code`: 2 when the caller can put it right
(a wrong file, budget or parameter), 1 when the work itself failed.
"""

from typing import ClassVar


class QblockError(Exception):
    """Base of all errors raised by qblock and its backends."""

    exit_code: ClassVar[int] = 1


class ProblemError(QblockError):
    """A sensitivity, a budget, a pin or a problem file is not usable as it is."""

    exit_code = 2


class ParameterError(QblockError):
    """A backend parameter is unknown, of the wrong type or out of range."""

    exit_code = 2


class StudyError(QblockError):
    """A plan or a study file is not usable as it is."""

    exit_code = 2


class BackendError(QblockError):
    """A backend started and failed."""


class UnknownBackend(BackendError):
    """No backend of this name is registered."""

    exit_code = 2


class BackendUnavailable(BackendError):
    """The backend is known but cannot run here: an extra, a token or a device is missing."""

    exit_code = 2


class CapacityError(BackendError):
    """The problem is too large for this backend; the message names what would fit."""

    exit_code = 2


class AuthenticationError(BackendError):
    """A cloud service refused the token, or there is none. The token is never in the message."""

    exit_code = 2


class QuotaExceeded(BackendError):
    """A cloud service refused for lack of quota, or a cost limit set by the user was reached."""


class ServiceError(BackendError):
    """A cloud service could not be reached, or its answer could not be understood."""


class SolverTimeout(BackendError):
    """The solver gave no answer within its time limit."""


class TextError(QblockError):
    """A text source is missing, unreadable, empty or too short."""

    exit_code = 2


class MeasurementError(QblockError):
    """A loss that was measured on a model cannot be used: it is NaN or infinite."""


class ModelError(QblockError):
    """A model cannot be read, is of an architecture nobody described, or does not fit."""

    exit_code = 2
