"""`kws demo`: a page to try a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    host: Annotated[str, typer.Option(help="the address to serve at; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
) -> None:
    """Serve a page that records or takes a file, shows scores and features, and listens; until Ctrl-C."""
    from kws_experiments.inference import demo_page

    demo_page.serve(run, host=host, port=port)
