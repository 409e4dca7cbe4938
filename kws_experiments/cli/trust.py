"""The option `--trust`, of every command that opens a run or an export."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from kws_experiments.runs.trust import TRUST

_HELP = "run the code that a run or an export from elsewhere names; see docs/security.md"


def with_trust(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the option, which holds for this process and those that it starts."""

    @functools.wraps(command)
    def trusting(*, trust: bool, **options: Any) -> None:
        if trust:
            os.environ[TRUST] = "1"
        command(**options)

    option = Annotated[bool, typer.Option("--trust", help=_HELP)]
    added = inspect.Parameter("trust", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    parameters = [*inspect.signature(command, eval_str=True).parameters.values(), added]
    trusting.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    trusting.__annotations__ = {each.name: each.annotation for each in parameters}
    return trusting
