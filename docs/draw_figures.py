"""Draw the pictures of the documentation: `python docs/draw_figures.py`.

All but the diagram show real results, from the bundled instance and fixed seeds. The screenshot
of a report needs Chromium, and is left as it is without.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from qblock import BlockRemovalProblem, Spectrum, get_backend, load_sensitivity
from qblock.maps import removal_map
from qblock.pictures import energy_histogram, save_picture
from qblock.study.analysis import analyse
from qblock.study.compare import compare
from qblock.study.contender import Contender
from qblock.study.report import report_html
from qblock.study.store import Store

FOLDER = Path(__file__).parent / "figures"
INSTANCE = "smollm2-135m-fisher"

STEPS = (
    ("language model\n+ text", "calibrate"),
    ("sensitivity\nH, block by block", "a budget"),
    ("one problem\nmin x'Hx, sum x = M", "solve"),
    ("samples of\nany solver", "judge"),
    ("ranked states,\nproved", "select, prune"),
    ("smaller model,\nmeasured", ""),
)
SOLVERS = ("exact", "annealing, tabu", "QAOA (Qiskit)", "D-Wave Leap")


def method() -> Figure:
    """The way from a model to a smaller model, and where the solvers come in."""
    figure = Figure(figsize=(12, 3.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12), ylim=(0, 3.4))
    axes.set_axis_off()
    for k, (text, arrow) in enumerate(STEPS):
        left = 0.15 + 2 * k
        last = k == len(STEPS) - 1
        colour = "#d7e8d4" if last else "#dbe6f4" if k else "#f1ead6"
        axes.add_patch(FancyBboxPatch((left, 1.9), 1.4, 1, "round,pad=0.06", fc=colour, ec="0.4"))
        axes.text(left + 0.7, 2.4, text, ha="center", va="center", fontsize=10)
        if arrow:
            ends = (left + 1.47, 2.4), (left + 1.94, 2.4)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=12))
            axes.text(left + 1.7, 3.1, arrow, ha="center", fontsize=9, style="italic")
    for k, name in enumerate(SOLVERS):
        left = 3.2 + 1.5 * k
        axes.add_patch(FancyBboxPatch((left, 0.25), 1.3, 0.5, "round,pad=0.04", fc="w", ec="0.4"))
        axes.text(left + 0.65, 0.5, name, ha="center", va="center", fontsize=9)
        up = (left + 0.65, 0.8), (5.9 + 0.05 * k, 1.85)
        axes.add_patch(FancyArrowPatch(*up, arrowstyle="<|-", mutation_scale=8, color="0.6"))
    axes.text(8.1, 1.3, "the same model to each", fontsize=9, style="italic", ha="left")
    return figure


def report(folder: Path) -> Path | None:
    """A screenshot of the top of a report; None without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    problem = BlockRemovalProblem(load_sensitivity(INSTANCE), remove=8)
    contenders = ("exact", "fixed-weight-tabu", "annealing", "annealing:penalty=safe", "random")
    with Store(folder / "study.db") as store:
        compare(problem, [Contender.parse(text) for text in contenders], store=store)
        (folder / "report.html").write_text(report_html(analyse(store)))
    picture = folder / "report.png"
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--window-size=1200,1500", "--virtual-time-budget=20000", f"--screenshot={picture}",
         (folder / "report.html").as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return picture


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "qblock"  # the same picture is the same file,
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # whenever it is drawn
    FOLDER.mkdir(exist_ok=True)
    sensitivity = load_sensitivity(INSTANCE)
    few, many = (BlockRemovalProblem(sensitivity, remove=m) for m in (4, 8))
    save_picture(method(), FOLDER / "method.svg")
    proved = get_backend("exact").sample(many, k=40)
    save_picture(removal_map([Spectrum.of(many, proved)]), FOLDER / "spectrum.png")
    qaoa, annealer = get_backend("qaoa-fixed-weight"), get_backend("dwave-local")
    landscape = qaoa.figure("landscape", few.reduced, qaoa.parse({}))
    save_picture(landscape, FOLDER / "landscape.png")
    sampled = energy_histogram(few, qaoa.sample(few, seed=1, p=3))
    save_picture(sampled, FOLDER / "qaoa-energies.png")
    embedding = annealer.figure("embedding", many.reduced, annealer.parse({}))
    save_picture(embedding, FOLDER / "embedding.png")
    with tempfile.TemporaryDirectory() as folder:
        screenshot = report(Path(folder))
        if screenshot:
            shutil.copyfile(screenshot, FOLDER / "report.png")


if __name__ == "__main__":
    main()
