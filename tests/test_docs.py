"""The documentation builds without a warning, and its snippets give what they show."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SNIPPET = re.compile(r"^```pycon\n(.*?)^```", re.M | re.S)
PAGES = [page for page in sorted(DOCS.glob("**/*.md")) if SNIPPET.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_give_what_they_show(page: Path) -> None:
    """The snippets of a page run in one session, as its reader would type them."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    session: dict[str, object] = {}
    for snippet in SNIPPET.findall(page.read_text()):
        test = parser.get_doctest(snippet, session, page.name, str(page), 0)
        runner.run(test, clear_globs=False)
        session = test.globs
    assert runner.tries > 0
    assert runner.failures == 0


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Broken references between pages, missing pictures and bad docstrings are warnings."""
    pytest.importorskip("furo")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", DOCS, tmp_path],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "core.html").read_text()
    assert "qblock.problem.BlockRemovalProblem" in page
    links = {
        (html.parent / target.split("#")[0]).resolve()
        for html in tmp_path.glob("**/*.html")
        for target in re.findall(
            r'(?:href|src)="(?!https?:|mailto:|#|data:)([^"?]+)', html.read_text()
        )
    }
    assert not [link for link in links if not link.exists()]
