"""The table hides nothing: goals that are not met, rows and contestants that were not measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.errors import UsageError
from tests.bench import document
from tests.bench.model import Measured, Row, Run, Sample, goal


def a_run(*rows: Row) -> Run:
    return Run(
        started="then", command="scripts/bench", commit="abc", machine={"cores": "2"}, programs={}, rows=[*rows]
    )


def a_row(name: str = "restore") -> Row:
    samples = [Sample(seconds=s, cpu=1.5) for s in (1.0, 2.0, 4.0)]
    return Row(
        name=name, title="A title",
        contestants=[Measured(name="rekindle", samples=samples, work=10**9), Measured(name="a | b", error="no such")],
        goals=[goal("fast", 2.0, 3.0, "x"), goal("small", 1.0, 1.2, at_most=True), goal("more", 1.0, float("nan"))],
    )  # fmt: skip


def test_goals_met_and_not() -> None:
    assert [one.met for one in a_row().goals] == [True, False, False]
    text = document.table(a_run(a_row()))
    assert "| restore | fast: ≥ 2x | 3.00x | met |" in text
    assert "| restore | small: ≤ 1 | 1.20 | **NOT MET** |" in text
    assert "| restore | more: ≥ 1 | not measured | **NOT MET** |" in text


def test_medians_spread_and_every_sample() -> None:
    text = document.table(a_run(a_row()))
    assert "| rekindle | 2.00 | 500 | 1.50 |  | 150 % | 1.00 | 1.00 2.00 4.00 |" in text
    assert "| a \\| b | | | | | | | no such |" in text


def test_a_row_that_could_not_be_measured_stays_in_sight() -> None:
    text = document.table(a_run(Row(name="scale", title="Scale", error="no loop devices")))
    assert "| scale | | not measured: no loop devices | **NOT MET** |" in text


def test_docs_keep_rows_of_an_earlier_run_and_say_so(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    document.write_docs(a_run(a_row("restore"), a_row("delta")), tmp_path)
    document.write_docs(a_run(a_row("delta")), tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    rows = document.load(tmp_path / "performance.json").rows
    assert [(row.name, len(row.notes)) for row in rows] == [("restore", 1), ("delta", 0)]


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("text\n")
    with pytest.raises(UsageError):
        document.write_docs(a_run(a_row()), tmp_path)
    assert not (tmp_path / "performance.json").exists()
