"""From folders of evaluations to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from idp.errors import TaskError
from idp.files import atomic_write_text
from idp.report.charts import require_charts
from idp.report.content import Report, report_of
from idp.report.markdown import to_markdown
from idp.report.page import to_html
from idp.report.run import read_run

__all__ = ["write_report"]


def write_report(folders: Sequence[Path], output: Path) -> Report:
    """Report evaluations as `report.html` and `report.md`.

    Args:
        folders: output folders of `idp eval`; several are compared.
        output: the folder to write to.

    Returns:
        What was written.

    Raises:
        TaskError: a folder holds no finished evaluation, or they are of different items.
        OutputError: the files cannot be written.
        MissingExtraError: what draws charts is not installed.

    Example:
        >>> write_report([Path("idp-results/reference")], Path("idp-results/reference")).title  # doctest: +SKIP
        'reference'
    """
    require_charts()
    if not folders:
        raise TaskError("no evaluation was named.")
    report = report_of([read_run(folder) for folder in {folder.resolve(): folder for folder in folders}.values()])
    atomic_write_text(output / "report.html", to_html(report))
    atomic_write_text(output / "report.md", to_markdown(report))
    return report
