import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qblock import BlockRemovalProblem
from qblock.cli import app
from qblock.errors import StudyError
from qblock.study.analysis import Analysis, analyse, fairness, summary
from qblock.study.contender import Contender
from qblock.study.execute import execute, local_workers
from qblock.study.export import frame, runs_table, samples_table, write_table
from qblock.study.plan import Plan
from qblock.study.qoblib import qoblib_table
from qblock.study.report import report_html, report_json, report_markdown
from qblock.study.store import Store, open_study
from qblock.testing import random_sensitivity

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

PLAN = Plan(
    problems=(
        BlockRemovalProblem(random_sensitivity(10), remove=3),
        BlockRemovalProblem(random_sensitivity(12), remove=4),
    ),
    contenders=(
        Contender("fixed-weight-tabu", {"num_reads": 3}),
        Contender("random", {"num_reads": 4}),
        Contender("descent", {"num_reads": 20, "penalty": 1e-6}),
        Contender("descent", {"num_reads": 20, "penalty": 100.0}),
        Contender("brute-force", {"max_states": 1}),
    ),
    seeds=tuple(range(4)),
    time_limits=(0.5, 2.0),
    name="two <sizes> & more",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.db"
    with Store(path) as store, local_workers(2) as crew:
        execute(PLAN, store, crew)
    return path


@pytest.fixture
def analysis(study: Path) -> Iterator[Analysis]:
    with open_study(study) as store:
        yield analyse(store)


def test_the_summary_is_two_sentences_that_are_true(analysis: Analysis) -> None:
    text = summary(analysis)
    assert "On 2 problems, fixed-weight-tabu:num_reads=3 reaches the proved optimum soonest" in text
    assert "descent:num_reads=20,penalty=1e-06" in text.partition("never reach it")[2]
    assert analysis.ranking[0] == "fixed-weight-tabu:num_reads=3"


def test_the_profile_and_the_differences_agree_with_the_tables(analysis: Analysis) -> None:
    tau, share = analysis.profile()
    assert tau[0] == 1
    leader = analysis.contenders.index(analysis.ranking[0])
    never = analysis.contenders.index("brute-force:max_states=1")
    assert share[leader, -1] == 1
    assert (share[never] == 0).all()
    assert (share[:, 0].sum()) >= 1
    ahead = analysis.gap_difference("random:num_reads=4", analysis.ranking[0])
    assert ahead is not None
    assert ahead.low > 0
    assert analysis.tts["brute-force:max_states=1"] is None


def test_fairness_names_what_a_referee_asks_for(analysis: Analysis) -> None:
    text = " ".join(fairness(analysis))
    assert "proved optimum on 2 of 2 problems (exact)" in text
    assert "nothing was tuned" in text
    assert "Hardware:" in text
    assert "16 runs failed" in text
    assert "Clopper-Pearson" in text
    assert "Not every contender has the same number of finished runs" in text


def test_json_is_strict_and_complete(analysis: Analysis) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    document = json.loads(report_json(analysis), parse_constant=refuse)
    assert len(document["problems"]) == 2
    rows = document["problems"][0]["rows"]
    assert len(rows) == 5 * 2
    for row in rows:
        if row["runs"]:
            assert row["success"]["low"] <= row["success"]["rate"] <= row["success"]["high"]
            assert row["tts"]["low"] > 0


def test_markdown_has_a_table_for_each_problem(analysis: Analysis) -> None:
    text = report_markdown(analysis)
    for comparison in analysis.comparisons:
        assert f"## {comparison.title}" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths
    assert "max_states=1" in text


def test_qoblib_has_the_columns_of_its_template(analysis: Analysis) -> None:
    rows = list(csv.DictReader(io.StringIO(qoblib_table(analysis))))
    assert len(rows) == 2 * 4  # the fifth contender has no finished run
    row = next(row for row in rows if row["Workflow"].startswith("fixed-weight-tabu"))
    assert row["# Runs"] == row["# Feasible Runs"] == row["# Successful Runs"] == "4"
    assert float(row["Best Objective Value"]) == pytest.approx(float(row["Optimality Bound"]))
    assert row["QPU Runtime"] == "N/A"
    assert {"Problem", "Submitter", "Date", "Reference", "Modeling Approach", "Remarks"} <= set(row)


class _Page(HTMLParser):
    """Collects ids, references to them, and anything loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("aria-labelledby", "aria-describedby"):
                self.references.add(value or "")
            if name in ("src", "href") and not (value or "").startswith("data:"):
                self.loads.append(value or "")


def test_the_page_is_one_small_file_that_loads_nothing(analysis: Analysis) -> None:
    pytest.importorskip("plotly")
    text = report_html(analysis)
    assert len(text.encode()) < 5_000_000
    page = _Page()
    page.feed(text)
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert page.tags.count("figcaption") == page.tags.count("figure") == 2 + 2 * 4
    assert page.tags.count("table") >= 3
    assert "two &lt;sizes&gt; &amp; more" in text
    assert "<sizes>" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("size", ["1200,1000", "390,800"])
def test_the_figures_are_drawn_in_a_real_browser(
    analysis: Analysis, tmp_path: Path, size: str
) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "report.html"
    page.write_text(report_html(analysis))
    done = subprocess.run(
        [
            CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}",
            "--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)
    figures = 2 + 2 * 4
    assert f'data-plots="{figures}"' in done.stdout
    assert done.stdout.count('<svg class="main-svg"') >= figures
    assert re.search(r'id="plots-off"[^>]*hidden', done.stdout)


def test_tables_for_other_tools(study: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with open_study(study) as store:
        runs, samples = runs_table(store), samples_table(store)
        total = sum(run.samples or 0 for run in store.runs())
    assert len(runs) == 2 + 2 * 5 * 4 * 2
    assert sum(row["occurrences"] for row in samples) == total
    parquet = pandas.read_parquet(write_table(samples, tmp_path / "s.parquet"))
    pandas.testing.assert_frame_equal(parquet, frame(samples), check_dtype=False)
    table = pandas.read_csv(write_table(runs, tmp_path / "r.csv"))
    assert list(table["key"]) == [row["key"] for row in runs]
    with pytest.raises(StudyError, match=r"\.csv or \.parquet"):
        write_table(runs, tmp_path / "r.xlsx")


def test_polars_takes_the_frame_and_the_file(study: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    with open_study(study) as store:
        samples, runs = samples_table(store), runs_table(store)
    assert polars.from_pandas(frame(samples)).to_dicts() == samples
    stored = polars.read_parquet(write_table(runs, tmp_path / "r.parquet"))
    assert stored["key"].to_list() == [row["key"] for row in runs]
    assert stored["solve_seconds"].to_list() == [row["solve_seconds"] for row in runs]


def test_from_a_plan_to_a_report_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == code, done.output
        return done.output

    Path("plan.toml").write_text(
        'seeds = 2\n[[instances]]\nsource = "smollm2-135m-fisher"\nremove = 2\n'
        '[[backends]]\nname = "random"\n'
        '[[instances]]\ngenerate = { kind = "homog", n = 8, seed = 1 }\nremove = 3\n'
    )
    assert "6 runs to do" in invoke("study", "run", "plan.toml", "--estimate")
    assert not Path("plan.db").exists()
    assert "6 runs done" in invoke("study", "run", "plan.toml", "--workers", "1")
    assert "0 runs done, 0 failed, 4 were there" in invoke("study", "run", "plan.toml")
    options = (
        "-i",
        "smollm2-135m-fisher",
        "--remove",
        "2",
        "-b",
        "descent:num_reads=5",
        "--seeds",
        "1",
    )
    invoke("study", "run", *options, "--store", "other.db")
    assert "1 runs from other.db" in invoke("study", "merge", "plan.db", "other.db")
    status = json.loads(invoke("study", "status", "plan.db", "--json"))
    assert {row["contender"] for row in status} >= {"random", "descent:num_reads=5"}
    assert "homog-8-1" in invoke("report", "plan.db", "--format", "markdown")
    invoke("report", "plan.db", "--format", "json", "-o", "report.json")
    assert json.loads(Path("report.json").read_text())["summary"]


def test_a_study_without_finished_runs(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.add_plan(PLAN.document(), PLAN.requests())
        with pytest.raises(StudyError, match="no finished run"):
            analyse(store)
