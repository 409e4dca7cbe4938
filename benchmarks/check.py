"""Run the benchmarks short, and compare their ratios with those on record, so that a slip is seen.

    python -m benchmarks.check [--only pipeline,training] [--tolerance 0.25]
    python -m benchmarks.check --record       # put what is found on record

`benchmarks/expected.toml` holds the commands and, for each, the ratios that were found when the code was last measured.
A ratio has slipped if all rounds are worse than on record by more than the tolerance: a noisy machine spreads the
rounds, a slower program moves them all. The exit status is 1 if one has slipped, or is no longer printed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.options import RATIOS, chosen, machine, run, table
from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_experiments.console.output import say
from kws_experiments.console.tables import Console

EXPECTED = Path(__file__).parent / "expected.toml"
_HEADER = """\
# What the benchmarks gave when the code was last measured: `python -m benchmarks.check` compares, --record renews.
# `costs`: the ratios of this benchmark are better when they are smaller.
"""


@dataclass
class Benchmark:
    """A command below `python -m benchmarks.`, the ratios that it prints, and whether smaller ones are better."""

    command: str
    costs: bool = False
    ratios: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A ratio's median and its range over the rounds."""

    median: float
    low: float
    high: float

    def slipped(self, expected: float, tolerance: float, *, costs: bool) -> bool:
        """Whether even the best round is worse than expected by more than the tolerance, a part of it."""
        if costs:
            return self.low > expected * (1 + tolerance)
        return self.high < expected * (1 - tolerance)


def main(
    only: Annotated[str, typer.Option(help="benchmarks, separated by commas, or all")] = "all",
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="a part of the ratio on record")] = 0.25,
    record: Annotated[bool, typer.Option("--record", help="put what is found on record")] = False,
    expected: Annotated[Path, typer.Option(help="the record")] = EXPECTED,
) -> None:
    """Run the benchmarks short, and compare their ratios with those on record."""
    benchmarks = read(expected)
    names = chosen("--only", only, list(benchmarks))
    printed = table("Ratios", ["benchmark", "ratio"], ["on record", "found", "rounds", ""])
    slipped = 0
    for name in names:
        benchmark = benchmarks[name]
        say(f"python -m benchmarks.{benchmark.command}", error=True)
        found = measure(benchmark.command)
        for ratio in {**benchmark.ratios, **found}:
            on_record, now = benchmark.ratios.get(ratio), found.get(ratio)
            verdict = "" if record else judge(on_record, now, tolerance, costs=benchmark.costs)
            slipped += verdict in ("slipped", "not printed")
            printed.add_row(
                name, ratio, "–" if on_record is None else f"{on_record:.2f}",
                *(("–", "") if now is None else (f"{now.median:.2f}", f"{now.low:.2f} to {now.high:.2f}")), verdict,
            )  # fmt: skip
        benchmark.ratios = {ratio: round(now.median, 2) for ratio, now in found.items()}
    Console().print(printed)
    say(machine())
    if record:
        write(expected, benchmarks)
    raise typer.Exit(1 if slipped else 0)


def judge(on_record: float | None, now: Found | None, tolerance: float, *, costs: bool) -> str:
    """What the last column says of a ratio."""
    if now is None:
        return "not printed"
    if on_record is None:
        return "new"
    return "slipped" if now.slipped(on_record, tolerance, costs=costs) else "holds"


def measure(command: str) -> dict[str, Found]:
    """Run a benchmark and return its ratios by name.

    Raises:
        KwsError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="kws-check-") as folder:
        ratios = Path(folder) / "ratios.jsonl"
        arguments = [sys.executable, "-m", *shlex.split(f"benchmarks.{command}")]
        done = subprocess.run(arguments, env=os.environ | {RATIOS: str(ratios)}, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise KwsError(f"benchmarks.{command}: ended with status {done.returncode}")
        lines = ratios.read_text(encoding="utf-8").splitlines() if ratios.is_file() else []
    return {entry.pop("name"): Found(**entry) for entry in map(json.loads, lines)}


def read(path: Path) -> dict[str, Benchmark]:
    """The record.

    Raises:
        KwsError: it is missing or not in its form.
    """
    try:
        return {name: Benchmark(**entry) for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise KwsError(f"'{path}' is no record of benchmarks: {error}") from error


def write(path: Path, benchmarks: dict[str, Benchmark]) -> None:
    """The record, as `read` reads it."""
    text = _HEADER
    for name, benchmark in benchmarks.items():
        text += f"\n[{name}]\ncommand = {json.dumps(benchmark.command)}\n" + "costs = true\n" * benchmark.costs
        text += f"[{name}.ratios]\n"
        text += "".join(f"{json.dumps(ratio)} = {value}\n" for ratio, value in benchmark.ratios.items())
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
