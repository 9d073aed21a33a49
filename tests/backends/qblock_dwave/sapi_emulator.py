"""A local HTTP server that speaks enough of D-Wave's solver API for the real cloud client.

It lists a quantum and three hybrid solvers, takes submissions and multipart uploads, is polled,
hands out answers, lists jobs and cancels them. Its answers come from classical annealing, so it
emulates the protocol and nothing of the physics. Faults are injected by a script of `Fault`s,
each of which strikes a number of times on one route.
"""

import base64
import hashlib
import io
import json
import socket
import struct
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import dimod
import numpy as np
from dwave.cloud.testing import mocks
from dwave.optimization import Model
from dwave.samplers import SimulatedAnnealingSampler

TOKEN = "good-token-0123456789"
PREFIX = "/sapi/v2"

Route = Literal["solvers", "submit", "list", "status", "answer", "download", "upload"]


@dataclass
class Fault:
    """What goes wrong on a route, for the next `times` requests.

    Kinds: "error" answers `code`; "refuse" closes the connection unread; "cut" does the work and
    closes the connection in the middle of the answer; "delay" waits `seconds` first; "garbage"
    answers what is no JSON; "short" leaves samples out of an answer; "strange" gives the job a
    status that no client knows; "failed" and "cancelled" end the job that way.
    """

    route: Route
    kind: Literal[
        "error", "refuse", "cut", "delay", "garbage", "short", "strange", "failed", "cancelled"
    ]
    times: int = 1
    code: int = 500
    message: str = "injected"
    retry_after: str = ""
    seconds: float = 0.0


@cache
def quantum_solver() -> dict[str, Any]:
    """A small Pegasus processor with the properties that the cloud client and qblock read."""
    data = mocks.qpu_pegasus_solver_data(4, name="Emulated_system1")
    data["properties"] |= {
        "problem_timing_data": mocks.qpu_problem_timing_data(),
        "problem_run_duration_range": [0, 1_000_000.0],
        "default_annealing_time": 20.0,
        "annealing_time_range": [0.5, 2000.0],
        "num_reads_range": [1, 10_000],
        "h_range": [-4.0, 4.0],
        "j_range": [-1.0, 1.0],
        "extended_j_range": [-2.0, 1.0],
        "per_qubit_coupling_range": [-18.0, 15.0],
        "chip_id": "emulated",
    }
    data["properties"]["parameters"] |= dict.fromkeys(
        ("answer_mode", "annealing_time", "auto_scale", "num_reads", "label"), ""
    )
    return data


@cache
def hybrid_solvers() -> tuple[dict[str, Any], ...]:
    bqm = mocks.hybrid_bqm_solver_data(name="hybrid_binary_quadratic_model_version2_emulated")
    cqm = mocks.hybrid_cqm_solver_data(name="hybrid_constrained_quadratic_model_emulated")
    nonlinear = mocks.hybrid_nl_solver_data(name="hybrid_nonlinear_program_emulated")
    for data in (bqm, cqm, nonlinear):
        data["properties"]["parameters"] = {"time_limit": "", "label": ""}
    return bqm, cqm, nonlinear


@dataclass
class Job:
    """A problem taken in: from this moment on it is paid for."""

    id: str
    request: dict[str, Any]
    polls: int = 0
    status: str = "PENDING"
    message: str = ""

    def document(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        document = {
            "id": self.id,
            "type": self.request["type"],
            "solver": self.request["solver"],
            "label": self.request.get("label"),
            "status": self.status,
            "submitted_on": now,
        }
        if self.status == "COMPLETED":
            document["solved_on"] = now
        if self.status == "FAILED":
            document["error_message"] = self.message
        return document


@dataclass
class SapiEmulator:
    """The server; use it as a context manager.

    Attributes:
        faults: what goes wrong; may be changed while it runs.
        online: whether the solvers are.
        polls_until_done: status requests that a job stays pending for.
        jobs: all that was ever taken in, by id.
        requests: how often each route was asked.
    """

    faults: list[Fault] = field(default_factory=list)
    online: bool = True
    polls_until_done: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def __enter__(self) -> "SapiEmulator":
        emulator = self

        class Handler(_Handler):
            sapi = emulator

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PREFIX}/"

    @property
    def solvers(self) -> list[dict[str, Any]]:
        status = "ONLINE" if self.online else "OFFLINE"
        return [{**data, "status": status} for data in (quantum_solver(), *hybrid_solvers())]

    def paid_labels(self) -> Counter[str]:
        """How many jobs were taken in under each label."""
        return Counter(str(job.request.get("label")) for job in self.jobs.values())

    def strike(self, route: str) -> Fault | None:
        """The fault that this request meets, if any."""
        with self._lock:
            self.requests[route] += 1
            for fault in self.faults:
                if fault.route == route and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def take(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        jobs = [Job(str(uuid.uuid4()), request) for request in requests]
        with self._lock:
            self.jobs.update((job.id, job) for job in jobs)
        return [job.document() for job in jobs]

    def poll(self, job: Job) -> dict[str, Any]:
        job.polls += 1
        if job.status == "PENDING" and job.polls > self.polls_until_done:
            job.status = "COMPLETED"
        return job.document()

    def answer(self, job: Job, *, short: bool) -> dict[str, Any]:
        if job.status == "PENDING":  # asked for directly, as by a fetch
            self.poll(job)
        document = job.document()
        if job.status != "COMPLETED":
            return document
        if job.request["data"]["format"] == "qp":
            return {**document, "answer": _anneal(job.request, short=short)}
        if job.request["type"] == "nl":
            where = {"url": f"{self.endpoint}problems/{job.id}/answer/data", "shape": {}}
            timing = {"charge_time": 5_000_000, "run_time": 4_990_000}
            reference = {"format": "binary-ref", "auth_method": "sapi-token", "timing": timing}
            return {**document, "answer": reference | where}
        return {**document, "answer": self._hybrid(job.request, short=short)}

    def _uploaded(self, request: dict[str, Any]) -> io.BytesIO:
        parts = self.uploads[request["data"]["data"]]
        return io.BytesIO(b"".join(parts[number] for number in sorted(parts)))

    def data(self, job: Job, *, short: bool) -> bytes:
        """States of the nonlinear model, in its file format: the best of many random ones."""
        model = Model.from_file(self._uploaded(job.request))
        rng = np.random.default_rng(1)
        with model.lock():
            model.states.resize(200)
            for row in range(model.states.size()):
                for decision in model.iter_decisions():
                    size, limit = decision.shape()[0], int(decision.info().max) + 1
                    decision.set_state(row, rng.choice(limit, size=size, replace=False))
            best = min(range(model.states.size()), key=model.objective.state)
            chosen = [decision.state(best) for decision in model.iter_decisions()]
            model.states.resize(1)
            for decision, values in zip(model.iter_decisions(), chosen, strict=True):
                decision.set_state(0, values)
            content: bytes = model.states.to_file().read()
        return content[: len(content) // 2] if short else content

    def _hybrid(self, request: dict[str, Any], *, short: bool) -> dict[str, Any]:
        content = self._uploaded(request)
        sampler = SimulatedAnnealingSampler()
        if request["type"] == "bqm":
            bqm = dimod.BinaryQuadraticModel.from_file(content)
            samples = sampler.sample(bqm, num_reads=20, seed=1).truncate(1, sorted_by="energy")
        else:
            cqm = dimod.ConstrainedQuadraticModel.from_file(content)
            scale = sum(abs(bias) for bias in cqm.objective.quadratic.values())
            bqm, invert = dimod.cqm_to_bqm(cqm, lagrange_multiplier=1 + scale)
            found = sampler.sample(bqm, num_reads=20, seed=1)
            samples = dimod.SampleSet.from_samples_cqm([invert(row) for row in found], cqm)
        if short:
            first = next(iter(samples.variables))
            samples = dimod.drop_variables(samples, [first])
        samples.info.update(charge_time=3_000_000, run_time=2_990_000, qpu_access_time=31_000)
        return {"format": "bq", "data": samples.to_serializable()}


def _anneal(request: dict[str, Any], *, short: bool) -> dict[str, Any]:
    """The answer to a structured problem in the API's packed form."""
    properties = quantum_solver()["properties"]
    qubits = properties["qubits"]
    linear = np.frombuffer(base64.b64decode(request["data"]["lin"]), "<f8")
    h = {q: float(v) for q, v in zip(qubits, linear, strict=True) if not np.isnan(v)}
    couplers = [tuple(c) for c in properties["couplers"] if c[0] in h and c[1] in h]
    quadratic = np.frombuffer(base64.b64decode(request["data"]["quad"]), "<f8")
    J = dict(zip(couplers, map(float, quadratic), strict=True))
    model = dimod.BinaryQuadraticModel(h, J, 0.0, "SPIN")
    parameters = request["params"]
    reads = parameters.get("num_reads", 1)
    samples = SimulatedAnnealingSampler().sample(model, num_reads=reads, num_sweeps=200, seed=1)
    samples = samples.aggregate()
    active = sorted(h)
    columns = [samples.variables.index(q) for q in active]
    bits = np.packbits((samples.record.sample[:, columns] > 0).astype(np.uint8), axis=1)
    energies = samples.record.energy
    if short:
        bits, energies = bits[:-1], energies[:-2]

    def packed(values: Any, kind: str) -> str:
        array = np.ascontiguousarray(values, dtype=kind)
        return base64.b64encode(array.tobytes()).decode()

    anneal = parameters.get("annealing_time", 20.0)
    return {
        "format": "qp",
        "active_variables": packed(active, "<i4"),
        "energies": packed(energies, "<f8"),
        "solutions": packed(bits, "u1"),
        "num_occurrences": packed(samples.record.num_occurrences, "<i4"),
        "num_variables": properties["num_qubits"],
        "timing": {
            "qpu_programming_time": 14_000.0,
            "qpu_anneal_time_per_sample": anneal,
            "qpu_readout_time_per_sample": 50.0,
            "qpu_sampling_time": reads * (anneal + 70.0),
            "qpu_access_time": 14_000.0 + reads * (anneal + 70.0),
        },
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sapi: SapiEmulator

    def log_message(self, *arguments: Any) -> None:
        """Silent: the tests read `SapiEmulator.requests`."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        path = url.path.removeprefix(PREFIX).strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        route = self._route(path, query)
        fault = self.sapi.strike(route)
        if fault and fault.kind == "refuse":
            return self._hang_up()
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "error":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._error(fault.code, fault.message, headers)
        if self.headers.get("X-Auth-Token") != TOKEN:
            return self._error(401, "Invalid token")
        try:
            document, media = self._respond(route, path, query, body, fault)
        except (KeyError, StopIteration):
            return self._error(404, "no such thing")
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        if fault and fault.kind == "garbage":
            content = b"<html>gateway</html>"
        return self._send(200, content, media, cut=fault is not None and fault.kind == "cut")

    def _route(self, path: list[str], query: dict[str, str]) -> Route:
        if path[0] == "solvers":
            return "solvers"
        if path[0] == "bqm":
            return "upload"
        if path[2:] == ["answer", "data"]:
            return "download"
        if len(path) > 1:
            return "answer"
        if self.command == "POST":
            return "submit"
        return "status" if "id" in query else "list"

    def _respond(
        self, route: Route, path: list[str], query: dict[str, str], body: bytes, fault: Fault | None
    ) -> tuple[Any, str]:
        """The answer and its media type."""
        sapi = self.sapi
        match route:
            case "solvers" if len(path) == 2:
                return sapi.solvers, "solver-definition-list"
            case "solvers":
                named = (s for s in sapi.solvers if s["identity"]["name"] == path[2])
                return next(named), "solver-definition"
            case "submit":
                return sapi.take(json.loads(body)), "problems"
            case "list":
                jobs = [j for j in sapi.jobs.values() if j.request.get("label") == query["label"]]
                return [job.document() for job in jobs], "problems"
            case "status":
                jobs = [sapi.jobs[id_] for id_ in query["id"].split(",")]
                if fault and fault.kind in ("failed", "cancelled"):
                    for job in jobs:
                        job.status, job.message = fault.kind.upper(), fault.message
                documents = [sapi.poll(job) for job in jobs]
                if all(document["status"] == "PENDING" for document in documents):
                    time.sleep(0.05)  # long polling, made short
                return documents, "problems"
            case "answer" if self.command == "DELETE":
                job = sapi.jobs[path[1]]
                if job.status == "PENDING":
                    job.status = "CANCELLED"
                return job.document(), "problem"
            case "answer":
                job = sapi.jobs[path[1]]
                short = fault is not None and fault.kind == "short"
                document = sapi.answer(job, short=short)
                if fault and fault.kind == "strange":
                    document["status"] = "STRANGE"
                return document, "problem"
            case "download":
                short = fault is not None and fault.kind == "short"
                return sapi.data(sapi.jobs[path[1]], short=short), "binary"
            case "upload":
                return self._upload(path[2:], body), ""

    def _upload(self, path: list[str], body: bytes) -> dict[str, Any]:
        if not path:
            id_ = str(uuid.uuid4())
            self.sapi.uploads[id_] = {}
            return {"id": id_}
        parts = self.sapi.uploads[path[0]]
        if path[1] == "part":
            parts[int(path[2])] = body
        if path[1] != "status":
            return {}
        sums = [
            {"part_number": number, "checksum": hashlib.md5(part).hexdigest()}
            for number, part in parts.items()
        ]
        return {"status": "UPLOAD_IN_PROGRESS", "parts": sums}

    def _body(self) -> bytes:
        body = b""
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "deflate":
            body = zlib.decompress(body)
        return body

    def _error(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        content = json.dumps({"error_code": code, "error_msg": message}).encode()
        self._send(code, content, "", headers=headers or {})

    def _send(
        self,
        code: int,
        content: bytes,
        media: str,
        *,
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        kind = f"vnd.dwave.sapi.{media}+json; version=3.0.0" if media else "json"
        kind = "octet-stream" if media == "binary" else kind
        self.send_response(code)
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        try:
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
        except OSError:  # the client left
            pass
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        """Reset the connection, so that the client sees an error and not a short answer."""
        self.close_connection = True
        linger_zero = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self.connection.close()
