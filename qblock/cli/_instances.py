"""`qblock instances`: the problems that come with qblock."""

from rich.table import Table

from qblock.cli import _common as common
from qblock.files import bundled_instances, load_sensitivity


def instances(as_json: common.JsonOption = False) -> None:
    """List the bundled sensitivity files; any of their names can stand for PROBLEM."""
    loaded = [load_sensitivity(name) for name in bundled_instances()]
    if as_json:
        common.print_json(
            [
                {
                    "name": s.name,
                    "blocks": len(s),
                    "curvature": s.curvature,
                    "effective_rank": s.effective_rank,
                    "provenance": s.provenance,
                }
                for s in loaded
            ]
        )
        return
    table = Table(title="bundled instances")
    for column in ("name", "blocks", "curvature", "effective rank", "model", "text"):
        table.add_column(column)
    for s in loaded:
        facts = s.provenance
        table.add_row(
            s.name,
            str(len(s)),
            s.curvature,
            f"{s.effective_rank:.1f}",
            str(facts.get("model", "")),
            str(facts.get("text", "")),
        )
    common.console.print(table)
