"""What benchmarks take on their command lines, and what they say of the machine."""

from __future__ import annotations

import argparse

from kws_data.storage.parallel import available_cpus
from kws_experiments.reports import model_table
from kws_experiments.runs import environment as provenance


def positive(text: str) -> int:
    """A whole number from 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def positive_number(text: str) -> float:
    """A number above 0."""
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {value:g}")
    return value


def models(text: str) -> list[str]:
    """Names of `conf/model/`, separated by commas, or all of them."""
    known = model_table.names()
    chosen = known if text == "all" else text.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise argparse.ArgumentTypeError(f"must be all or some of {', '.join(known)}, got '{unknown[0]}'")
    return chosen


def machine() -> str:
    """Such as `2 cores (AMD EPYC)`."""
    return f"{available_cpus()} cores ({provenance.processor()['model']})"
