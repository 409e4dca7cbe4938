"""The table of models (`kws models`): what each costs, beside what its source reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_data.text import markdown, to_csv
from kws_experiments.config.compose import CONF, compose, compose_unresolved
from kws_experiments.experiment.experiment import Experiment

if TYPE_CHECKING:
    import keras

    from kws_models.cost import Cost

BEGIN, END = "<!-- kws models -->", "<!-- /kws models -->"
DASH = "–"


@dataclass(frozen=True)
class Published:
    """What a model's source reports, and for which features and task: the key `published` of its config.

    Attributes:
        features: one of conf/features/.
        settings: overrides of its keys.
        task: one of conf/task/.
        parameters: as the source prints them; empty where it doesn't.
        counted: which of our counts that is: `parameters`, `trained` or `folded` (see `Row`).
        accuracy: on the test split unless said, and on which release.
    """

    features: str = "log_mel"
    settings: Sequence[str] = ()
    task: str = "keywords12"
    parameters: str = ""
    counted: str = ""
    accuracy: str = ""


@dataclass(frozen=True)
class Choice:
    """A model with features and a task: those of its source, unless others are chosen."""

    model: str
    features: str
    experiment: Experiment
    published: Published

    def shape(self) -> tuple[int, int]:
        """(frames, bins) of one clip: of `clip_ms`, or of a second where clips keep their lengths."""
        return self.experiment.nominal_feature_shape()

    def num_labels(self) -> int:
        """How many logits the task needs.

        Raises:
            KwsError: the data set would have to say.
        """
        task = self.experiment.task
        if task.words is None:
            raise KwsError("task.words: null takes the words of the data set, and there is none here; list them")
        return task.silence + task.unknown + len(task.words)

    def build(self) -> keras.Model:
        """The network.

        Raises:
            KwsError: it can't take such features.
        """
        return self.experiment.build_network(self.num_labels())


@dataclass(frozen=True)
class Row:
    """A model's counts.

    Attributes:
        shape: (frames, bins) of one clip.
        parameters: all values of the network, the running statistics of batch normalisation among them.
        trained: those that training's gradients change.
        cost: at inference, batch normalisation folded (see `kws_models.cost`).
        error: why there are no counts.
        micro: in TensorFlow Lite Micro, as int8 (see `export.tflm.measured`); None: it was not asked for.
    """

    model: str
    features: str
    shape: tuple[int, int]
    labels: int
    published: Published
    parameters: int | None = None
    trained: int | None = None
    cost: Cost | None = None
    error: str = ""
    micro: dict[str, int | str] | None = None

    @property
    def arena(self) -> int | None:
        """In bytes; None where it was not measured."""
        return int(self.micro["arena"]) if self.micro and "arena" in self.micro else None


def names(config_dir: Path | None = None) -> list[str]:
    """The models that there are, the user's own last.

    Raises:
        KwsError: no such folder.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise KwsError(f"--config-dir: no folder '{config_dir}'")
    folders = [CONF, *([config_dir] if config_dir else [])]
    return list(dict.fromkeys(path.stem for folder in folders for path in sorted((folder / "model").glob("*.yaml"))))


def choose(model: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> Choice:
    """A model of `names`.

    Raises:
        KwsError: an override names something that isn't there.
    """
    published = published_of(model, config_dir)
    chosen = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    sources = [] if "features" in chosen else [f"features={published.features}", *published.settings]
    if "task" not in chosen:
        sources.append(f"task={published.task}")
    config = compose([f"model={model}", *sources, *overrides], config_dir)
    return Choice(model, chosen.get("features", published.features), Experiment(config), published)


def published_of(model: str, config_dir: Path | None = None) -> Published:
    """What the source of a model of `names` reports; nothing where its config doesn't say.

    Raises:
        KwsError: the key `published` holds something else.
    """
    cfg = compose_unresolved([f"+model={model}"], config_dir, start=None)
    reported = OmegaConf.select(cfg, "model.published") or {}
    known = [field.name for field in fields(Published)]
    if not isinstance(reported, Mapping) or not set(reported) <= set(known):
        raise KwsError(f"model/{model}.yaml: published: must hold {', '.join(known)} or some of these, got {reported}")
    texts = {str(key): str(value) for key, value in reported.items() if key != "settings"}
    return Published(settings=list(reported.get("settings", ())), **texts)


def count(choice: Choice) -> Row:
    """Build the model and count. Where it doesn't take such features, or can't be counted, the row says why.

    Raises:
        KwsError: the features or the task are not right.
    """
    from kws_models.cost import inference_cost

    frames, bins = choice.shape()
    row = Row(choice.model, choice.features, (frames, bins), choice.num_labels(), choice.published)
    try:
        model = choice.build()
        trained = sum(int(math.prod(variable.shape)) for variable in model.trainable_variables)
        row = replace(row, parameters=model.count_params(), trained=trained)
        return replace(row, cost=inference_cost(model, frames))
    except Exception as error:  # a layer of the user's own counts by itself
        return replace(row, error=" ".join(str(error).split()) or type(error).__name__)


HEADINGS = (
    "model", "features", "labels", "parameters", "trained", "folded", "multiply-adds", "float32", "int8",
    "activations", "published parameters", "published accuracy",
)  # fmt: skip
NUMERIC = (*HEADINGS[2:-1], "arena")


def headings(rows: Sequence[Row]) -> list[str]:
    """`HEADINGS`, with the arena before what is published, if it was asked for."""
    arena = ["arena"] if any(row.micro is not None for row in rows) else []
    return [*HEADINGS[:-2], *arena, *HEADINGS[-2:]]


def cells(row: Row) -> list[str]:
    """The row under `headings`, for people."""
    counts = [DASH if number is None else f"{number:,}" for number in (row.parameters, row.trained)]
    if row.cost is None:
        counts += [DASH] * 5
    else:
        sizes = row.cost.float32_bytes, row.cost.int8_bytes, row.cost.activations
        counts += [f"{row.cost.weights:,}", f"{row.cost.multiply_adds / 1e6:,.2f} M"]
        counts += [f"{size / 1000:,.1f} kB" for size in sizes]
    if row.micro is not None:
        counts.append("not measured" if row.arena is None else f"{row.arena / 1000:,.1f} kB")
    published = row.published.parameters or DASH
    if row.published.counted in ("trained", "folded"):
        published += f" {row.published.counted}"
    features = f"{row.features} {row.shape[0]} × {row.shape[1]}"
    return [row.model, features, str(row.labels), *counts, published, row.published.accuracy or DASH]


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for the README."""
    rule = ["---:" if heading in NUMERIC else "---" for heading in headings(rows)]
    lines = (headings(rows), rule, *(map(markdown, cells(row)) for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """The same with plain numbers: sizes in bytes, and an empty field for what is not known."""
    columns = [
        "model", "features", "frames", "bins", "labels", "parameters", "trained", "folded", "multiply_adds",
        "float32_bytes", "int8_bytes", "int8_activation_bytes", "int8_arena_bytes", "published_parameters",
        "published_counted", "published_accuracy",
    ]  # fmt: skip
    values = []
    for row in rows:
        cost, published = row.cost, row.published
        at_inference: list[int | None] = [None] * 5
        if cost:
            sizes = [cost.float32_bytes, cost.int8_bytes, cost.activations]
            at_inference = [cost.weights, cost.multiply_adds, *sizes]
        values.append([
            row.model, row.features, *row.shape, row.labels, row.parameters, row.trained, *at_inference, row.arena,
            published.parameters, published.counted, published.accuracy,
        ])  # fmt: skip
    return to_csv(pd.DataFrame(values, columns=columns, dtype=object))


def update(path: Path, rows: Sequence[Row]) -> None:
    """Put the Markdown table between the markers of a file.

    Raises:
        KwsError: there are no such markers.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise KwsError(f"--update: '{path}' has no lines '{BEGIN}' and '{END}'")
    with replace_file(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{as_markdown(rows)}\n{end}{after}", encoding="utf-8")
