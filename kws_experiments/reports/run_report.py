"""The report of a run (`kws report RUN`): one HTML file, and the same in Markdown with its pictures beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_files
from kws_experiments.config.exit import as_line
from kws_experiments.reports.contents import RunContents
from kws_experiments.reports.html import HTML, as_html
from kws_experiments.reports.markdown import as_markdown
from kws_experiments.reports.page import Clips
from kws_experiments.reports.run_page import run_page
from kws_experiments.runs.trust import is_trusted

log = logging.getLogger(__name__)

MARKDOWN, PICTURES = "report.md", "figures"
MOST_BYTES = 5_000_000  # of the HTML file


def write_run_report(path: Path, out: Path | None = None) -> Path:
    """Write `report.html`, `report.md` and `figures/` into a run's folder, or into `out`; all of them or none.

    Needs neither the data set nor TensorFlow: everything is in the folder.

    Returns:
        the HTML file.

    Raises:
        KwsError: `path` is not the folder of a finished run, one of its files is missing, damaged or of another
            version.
        OSError: the report can't be written.
    """
    folder = path if out is None else out
    with _of_any_content(path):
        page = run_page(RunContents.read(path))
        players = [part.players for part in page.parts() if isinstance(part, Clips)]
        while len(html := as_html(page).encode()) >= MOST_BYTES:
            if not any(players):
                raise KwsError(f"'{path}': its report has {len(html) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}")
            players[0].pop()
        markdown = as_markdown(page, PICTURES).encode()
        pictures = {folder / PICTURES / f"{picture.name}.png": picture.png for picture in page.pictures()}
    replace_files({folder / HTML: html, folder / MARKDOWN: markdown, **pictures})
    return folder / HTML


@contextmanager
def _of_any_content(path: Path) -> Iterator[None]:
    """Turn errors over what the files of a run from elsewhere hold into one line; in one's own they are a defect."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if is_trusted(path):
            raise
        what = " ".join(str(error).split())[:200]
        raise KwsError(f"'{path}': its files hold something else than those of a run do ({what})") from error


def renew_run_report(path: Path) -> None:
    """Write a run's report again, if it has one, since its folder now holds more; a failure is only a warning."""
    if (path / HTML).is_file():
        try:
            write_run_report(path)
        except (KwsError, OSError) as error:
            log.warning("the report is as it was: %s", as_line(error))
