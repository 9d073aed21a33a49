"""One job at the Leap service, through D-Wave's cloud client: sent once, and not lost.

The order of events makes a job safe. The run is written to the ledger before it is sent, under
a label; the service's id is added as soon as it is known, and the answer when it is there. If
the connection breaks while a job is sent, nobody can tell whether the service took it, so it is
looked for by its label before it is sent again. Asking for status and answers costs nothing and
is repeated with growing pauses; the client alone gives up at the first error there.
"""

import functools
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import dimod

from qblock.backend import Availability, Progress, Run
from qblock.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailable,
    CapacityError,
    QblockError,
    QuotaExceeded,
    ServiceError,
    SolverTimeout,
)
from qblock_dwave.ledger import JobRecord, Ledger

T = TypeVar("T")

TOKEN_HINT = "set DWAVE_API_TOKEN, or run `dwave setup` (token: https://cloud.dwavesys.com/leap)"

OUT_OF_TIME = re.compile(
    r"quota|insufficient|remaining (solver )?(access|time)|exceeded.*limit", re.I
)
TOO_LARGE = re.compile(r"too (large|big|many)|maximum (number|size)", re.I)

ENDED_WITHOUT_ANSWER = ("FAILED", "CANCELLED")
"""States of a job, as the service names them, after which another one may be sent."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what.

    Attributes:
        attempts: tries of a request that may be repeated.
        first_pause, longest_pause: seconds between tries; doubled from one to the next.
        request_seconds: until a request without an answer counts as lost.
        job_seconds: for an answer, where the run has no time limit.
    """

    attempts: int = 6
    first_pause: float = 1.0
    longest_pause: float = 60.0
    request_seconds: float = 60.0
    job_seconds: float = 3600.0

    def pause(self, failures: int) -> float:
        return float(min(self.first_pause * 2 ** (failures - 1), self.longest_pause))


class _TooManyRequests(QuotaExceeded):
    """Code 429: nothing was taken, and the same request may pass a little later."""


def _without_token(text: str) -> str:
    """`text` with the token blotted out: HTTP libraries and services quote what they refuse."""
    from dwave.cloud.config import load_config

    try:
        token = (load_config().get("token") or "").strip()
    except Exception:  # an unreadable file or an unknown profile: then there is no token either
        token = ""
    return text.replace(token, "<token>") if token else text


def credentials() -> Availability:
    """Whether Ocean's configuration (file and environment) has a token. No network; the token's
    value goes nowhere."""
    found = Availability.of_extra("dwave.cloud", "dwave")
    if not found.ok:
        return found
    from dwave.cloud.config import load_config

    try:
        config = load_config()
    except Exception as error:  # an unreadable file or an unknown profile
        reason = f"Ocean's configuration cannot be read ({type(error).__name__})"
        return Availability(False, reason, "see `dwave config ls` and DWAVE_PROFILE")
    region = config.get("region") or "default region"
    where = config.get("endpoint") or region
    if not config.get("token"):
        return Availability(False, f"no token found (endpoint: {where})", TOKEN_HINT)
    if not re.fullmatch(r"[!-~]+", config["token"]):
        reason = f"the token has white space or characters that no token has (endpoint: {where})"
        return Availability(False, reason, "copy it again, without line breaks or spaces")
    return Availability(True, f"token found (endpoint: {where})")


@contextmanager
def connection(kind: Literal["qpu", "hybrid"], patience: Patience) -> Iterator[Any]:
    """A `dwave.cloud.Client` with Ocean's own configuration, closed without waiting for jobs."""
    from dwave.cloud import Client

    try:
        client = Client.from_config(
            client=kind,
            request_timeout=patience.request_seconds,
            http_retry_total=0,  # repeated here, where it is known what may be repeated
            poll_strategy="long-polling",
            poll_wait_time=5,
        )
    except Exception as error:
        raise service_error(error, "connecting") from None
    try:
        yield client
    finally:
        # Closing waits for requests in flight, which may be for nobody any more.
        closing = threading.Thread(target=client.close, kwargs={"wait": False}, daemon=True)
        closing.start()
        closing.join(timeout=1.0)


def find_solver(
    client: Any, patience: Patience, name: str, *, refresh: bool = False, **features: Any
) -> Any:
    """The named solver, or the one that Ocean is configured for, or the least busy that fits.

    Definitions come from Ocean's own cache, which keeps a solver's state for 15 minutes. The
    service is asked anew with `refresh`, and if the cache has none: one may have come online.

    Raises:
        BackendUnavailable: it is unknown or offline.
        AuthenticationError, ServiceError: see `service_error`.
    """
    wanted = {"name": name} if name else features
    if not name and features.get("qpu") and client.config.solver:
        wanted = {}  # the configured one, which is meant for quantum processors
    doing = f"looking for solver {name!r}" if name else "looking for a solver"
    if not refresh:
        with suppress(BackendUnavailable):
            return repeat(lambda: client.get_solver(**wanted), patience, doing)
    return repeat(lambda: client.get_solver(refresh=True, **wanted), patience, doing)


def service_error(error: BaseException, doing: str, job: str = "") -> QblockError:
    """The typed error for what the cloud client raised.

    Args:
        doing: what was tried, for the message.
        job: the service's id of a job that goes on.
    """
    from dwave.cloud import exceptions as cloud
    from dwave.cloud.api import exceptions as api
    from requests.exceptions import RequestException

    if isinstance(error, QblockError):
        return error
    code = getattr(error, "error_code", None)
    text = _without_token(str(error).splitlines()[0] if str(error) else type(error).__name__)
    kept = f"; job {job} is kept: `qblock fetch {job}`" if job else ""
    where = f"{doing}: {text}"
    if isinstance(error, cloud.SolverAuthenticationError | api.ResourceAuthenticationError):
        return AuthenticationError(f"Leap refused the token while {doing}; {TOKEN_HINT}")
    if code == 403 or isinstance(error, api.ResourceAccessForbiddenError):
        return AuthenticationError(f"Leap denied access while {doing}; check the project's token")
    if isinstance(error, cloud.SolverOfflineError) or (
        isinstance(error, api.ResourceNotFoundError) and not job
    ):
        return BackendUnavailable(
            f"no such solver is online while {doing}; `dwave solvers --list` shows what there is"
        )
    if code == 429 or isinstance(error, api.ResourceLimitsExceededError):
        return _TooManyRequests(f"Leap refuses more requests while {where}; try again later{kept}")
    if isinstance(error, cloud.CanceledFutureError):
        return BackendError(f"the job was cancelled while {doing}; run it again")
    if isinstance(error, cloud.SolverError | cloud.SolverFailureError | ValueError | KeyError):
        if OUT_OF_TIME.search(text):
            return QuotaExceeded(f"{where}; see the remaining time on the Leap dashboard")
        if TOO_LARGE.search(text):
            return CapacityError(f"{where}; pin blocks with --keep or --drop")
    malformed = cloud.InvalidAPIResponseError | api.ResourceBadResponseError
    if job:  # then the client only decodes, and trips over what does not fit
        malformed = malformed | ValueError | KeyError | TypeError
    if isinstance(error, malformed):
        return ServiceError(f"the answer could not be understood while {where}{kept}")
    if isinstance(error, cloud.SolverFailureError | ValueError | KeyError) or (
        code is not None and 400 <= code < 500
    ):
        return BackendError(f"the solver refused while {where}")
    if isinstance(error, RequestException | OSError | TimeoutError | cloud.PollingTimeout):
        return ServiceError(
            f"Leap cannot be reached or failed while {where}; check the network{kept}"
        )
    return ServiceError(f"unexpected {type(error).__name__} while {where}{kept}")


def is_transient(error: QblockError) -> bool:
    """Whether the same request may well succeed a little later."""
    return isinstance(error, ServiceError | _TooManyRequests)


def repeat(
    request: Callable[[], T],
    patience: Patience,
    doing: str,
    *,
    run: Run | None = None,
    job: str = "",
) -> T:
    """The result of a request that costs nothing, tried until it works or patience ends."""
    for failures in range(1, patience.attempts + 1):
        try:
            return request()
        except Exception as raised:
            error = service_error(raised, doing, job)
            last = failures == patience.attempts or (run is not None and run.expired())
            if last or not is_transient(error):
                raise error from None
        time.sleep(patience.pause(failures))
    raise AssertionError("unreachable")


def submit(
    client: Any,
    send: Callable[[str], Any],
    record: JobRecord,
    ledger: Ledger,
    patience: Patience,
    run: Run,
) -> tuple[JobRecord, Any]:
    """Send the job once; its record with the service's id, and the client's future.

    The future is None if the job was found at the service instead of being sent. After a broken
    connection the job is looked for and sent again if it is not there. After a request without
    an answer it may still arrive, so it is looked for and not sent again by this run.

    Args:
        send: submits under the label that it is given and returns a future.

    Raises:
        QblockError: the service refused (nothing was sent), or could not be asked whether it
            took the job (its record stays, and the next run asks again).
    """
    from dwave.cloud.api.exceptions import RequestTimeout

    uncertain = ledger.find(record.key) is not None  # a run before this one may have sent it
    if not uncertain:
        ledger.save(record)
    in_flight = False  # a request timed out here: the service may take the job any moment
    for failures in range(1, patience.attempts + 1):
        if uncertain:
            job = repeat(lambda: _find_job(client, record.label), patience, "looking for the job")
            if job:
                return ledger.save(replace(ledger.find(record.key) or record, job=job)), None
        try:
            if in_flight:
                raise TimeoutError("no answer, so it is not sent again; run it again in a while")
            future = send(record.label)
            has_id = functools.partial(_has_id, future)
            if not _wait_for(has_id, patience.job_seconds, run):
                raise SolverTimeout(
                    "the time limit ended before Leap confirmed the job; if it was taken, the "
                    "same run with the same seed collects it"
                )
            if future.id is None:
                future.exception()  # raises it
        except SolverTimeout:
            raise
        except Exception as raised:
            error = service_error(raised, "sending the job")
            in_flight = in_flight or isinstance(raised, RequestTimeout)
        else:  # outside the `try`: a full disk is no refusal, the job is taken
            return ledger.save(replace(record, job=future.id)), future
        # A refusal with a 4xx code took nothing; after anything else nobody knows.
        uncertain = isinstance(error, ServiceError)
        last = failures == patience.attempts or run.expired()
        if last or not is_transient(error):
            if not uncertain:
                ledger.forget(record)
            raise error
        time.sleep(patience.pause(failures))
    raise AssertionError("unreachable")


def _has_id(future: Any, seconds: float) -> bool:
    try:
        future.wait_id(seconds)
    except TimeoutError:
        return False
    return True


def _find_job(client: Any, label: str) -> str:
    """The id of the job with this label at the service, or ''. Failed ones give no answer."""
    from dwave.cloud.api.resources import Problems

    with Problems.from_config(client.config) as problems:
        found = problems.list_problems(label=label)
    return next((str(job.id) for job in found if job.status.value not in ENDED_WITHOUT_ANSWER), "")


def cancel_job(client: Any, job: str, patience: Patience) -> str:
    """Ask the service to cancel a job; the state that it then reports, such as "CANCELLED"."""
    from dwave.cloud.api.resources import Problems

    def request() -> Any:
        with Problems.from_config(client.config) as problems:
            return problems.cancel_problem(job)

    answer = repeat(request, patience, f"cancelling job {job}", job=job)
    status = getattr(answer, "status", None)
    if status is None:  # the API's own account of why not
        raise BackendError(f"job {job} cannot be cancelled: {_without_token(answer.error_msg)}")
    return str(status.value)


def await_answer(
    client: Any,
    future: Any,
    record: JobRecord,
    ledger: Ledger,
    patience: Patience,
    run: Run,
    decode: Callable[[Any], dimod.SampleSet],
) -> JobRecord:
    """The record with the job's answer, asked for as often as needed.

    Args:
        future: of the submission, or None to ask for the job by its id.
        decode: the samples of a future that is done; raises `ServiceError` if they cannot be an
            answer to this problem.

    Raises:
        SolverTimeout: not solved within the run's time limit; the job goes on and is kept.
        BackendError: the service failed or cancelled the job; its record is dropped.
        ServiceError: no usable answer; the job is kept.
    """
    from dwave.cloud.exceptions import (
        CanceledFutureError,
        SolverFailureError,
        SolverOfflineError,
    )

    job = record.job
    pending = [future] if future is not None else []

    def answer() -> dimod.SampleSet:
        asked = pending.pop() if pending else client.retrieve_answer(job)
        limit = patience.job_seconds if run.time_limit is None else run.remaining()
        run.report(Progress(f"job {job} is queued or running"))
        if not _wait_for(asked.wait, limit, run):
            raise SolverTimeout(
                f"job {job} was not solved in time and goes on; `qblock fetch {job}` collects it"
            )
        try:
            asked.exception()  # raises it, if there is one
        except (SolverFailureError, SolverOfflineError, CanceledFutureError):
            if asked.remote_status not in ENDED_WITHOUT_ANSWER:
                raise ServiceError(
                    f"job {job} is in a state that is not known here, {asked.remote_status!r}; "
                    f"it is kept: `qblock fetch {job}`"
                ) from None
            ledger.forget(record)  # this job will never have an answer; another may be sent
            raise
        return decode(asked)

    try:
        samples = repeat(answer, patience, f"fetching job {job}", run=run, job=job)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"job {job} goes on: `qblock fetch {job}`") from None
    return ledger.save(replace(record, answer=samples.to_serializable()))


def _wait_for(wait: Callable[[float], Any], seconds: float, run: Run) -> bool:
    """`wait` in short pieces, until it is true or the seconds or the run's time are over."""
    end = time.monotonic() + min(seconds, max(run.remaining(), 0.0))
    while True:
        left = end - time.monotonic()
        if wait(max(min(left, 0.5), 0.0)):
            return True
        if left <= 0:
            return False


def check_service(
    kind: Literal["qpu", "hybrid"], patience: Patience, **features: Any
) -> Availability:
    """Whether the service can be reached with this token and has such a solver online."""
    state = credentials()
    if not state.ok:
        return state
    try:
        with connection(kind, replace(patience, attempts=1)) as client:
            once = replace(patience, attempts=1)
            solver = find_solver(client, once, "", refresh=True, **features)
            return Availability(True, f"{state.reason}; solver {solver.name} online")
    except QblockError as error:
        return Availability(False, str(error), "")
