"""The tables of a run's report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kws_data.splits import SPLITS
from kws_experiments.config.command import Difference
from kws_experiments.export import table as export_tables
from kws_experiments.reports.contents import Evaluation, Listening, RunContents
from kws_experiments.reports.tables import (
    Column,
    Table,
    cell,
    decibels,
    fixed,
    number,
    of_frame,
    percent,
    table,
)

MOST_ASIDE, MOST_SPEAKERS, MOST_WRONG = 50, 20, 30


def interval(low_high: list[float] | None) -> str:
    """[0.901, 0.945] → `90.1 to 94.5 %`."""
    if low_high is None:
        return "not known"
    low, high = low_high
    return f"{100 * low:.1f} to {percent(high)}"


def tiles(contents: RunContents) -> list[tuple[str, str, str]]:
    """(name, value, what to know) of the figures that come first."""
    metrics, cost = contents.own.metrics, contents.cost
    detection, calibration = metrics["detection"], metrics["calibration"]
    error_rate = detection["mean_equal_error_rate"]
    found = [
        (f"Accuracy, {metrics['split']}", percent(metrics["accuracy"]), interval(metrics["accuracy_95"])),
        ("Macro-F1", percent(metrics["macro_f1"]), interval(metrics["macro_f1_95_by_speaker"])),
        ("Equal error rate", "–" if error_rate is None else percent(error_rate), "mean of the keywords"),
        ("Calibration error", percent(calibration["expected_calibration_error"]), "expected"),
    ]
    if cost:
        multiply_adds = cost["multiply_adds"]
        operations = "–" if multiply_adds is None else f"{multiply_adds / 1e6:.2f} M"
        found += [
            ("Parameters", number(cost["parameters"]), f"{number(cost['trained'])} trained"),
            ("Multiply-adds", operations, "per clip"),
            ("Latency", f"{cost['latency_ms']['median']:.2f} ms", "per clip, this machine"),
        ]
    return found


def difference_table(found: list[Difference], experiment: str | None) -> Table:
    """What was changed, group or key by key."""
    default = "default" if experiment is None else f"default of {experiment}"
    return table(
        "Differences from the defaults",
        [vars(difference) for difference in found],
        {"key": ("group or key", None), "default": (default, None), "value": ("this run", None)},
    )


def label_table(contents: RunContents) -> Table:
    """Examples by label and split."""
    columns = {split: (split, number) for split in SPLITS}
    sums = ", ".join(f"{number(int(contents.label_counts[split].sum()))} {split}" for split in SPLITS)
    return of_frame(f"Examples by label: {sums}", contents.label_counts, {"label": ("label", None), **columns})


def catalog_table(contents: RunContents) -> Table:
    """The data set's clips by word and split, before the task draws on them."""
    catalog = contents.catalog
    counts = catalog.pivot(index="word", columns="split", values="clips").reindex(columns=list(SPLITS)).fillna(0)
    counts = counts.astype(int).assign(hours=catalog.groupby("word")["hours"].sum()).reset_index()
    title = f"Clips by word: {number(int(catalog['clips'].sum()))}, {catalog['hours'].sum():.2f} hours"
    columns = {split: (split, number) for split in SPLITS}
    return of_frame(title, counts, {"word": ("word", None), **columns, "hours": ("hours", fixed(3))})


def aside_table(contents: RunContents) -> Table:
    """The first files that were not used."""
    rows = contents.set_aside
    title = f"Files set aside: {number(len(rows))}"
    if len(rows) > MOST_ASIDE:
        title += f", the first {MOST_ASIDE} of them here and all in data/set_aside.csv"
    columns = {"path": ("file", None), "split": ("split", None), "error": ("reason", None)}
    return of_frame(title, rows.head(MOST_ASIDE), columns)


def class_table(evaluation: Evaluation) -> Table:
    """Classification and detection by class."""
    metrics = evaluation.metrics
    rows = [
        {
            "label": label,
            **values,
            **metrics["detection"]["keywords"].get(label, {}),
            **metrics["at_thresholds"].get(label, {}),
            "clips": values["clips"],
        }
        for label, values in metrics["per_class"].items()
    ]
    return table(
        "By class",
        rows,
        {
            "label": ("class", None),
            "clips": ("clips", number),
            "precision": ("precision", percent),
            "recall": ("recall", percent),
            "f1": ("F1", percent),
            "auc": ("area under ROC", fixed(4)),
            "equal_error_rate": ("equal error rate", percent),
            "threshold": ("threshold", fixed(3)),
            "false_accept_rate": ("false accepts at it", percent),
            "false_reject_rate": ("false rejects at it", percent),
        },
    )


def pair_table(evaluation: Evaluation) -> Table:
    """The most frequent confusions."""
    rows = [{**pair, "rate": pair["clips"] / pair["of"]} for pair in evaluation.metrics["worst_pairs"]]
    columns: Any = {
        "label": ("label", None),
        "predicted": ("taken for", None),
        "clips": ("clips", number),
        "of": ("of", number),
        "rate": ("rate", percent),
    }
    return table("Most frequent confusions", rows, columns)


def folder_table(evaluation: Evaluation) -> Table:
    """Unknown folders, and how often their clips were taken for keywords."""
    rows = [{"folder": folder, **values} for folder, values in evaluation.metrics["unknown_folders"].items()]
    columns: Any = {
        "folder": ("unknown folder", None),
        "clips": ("clips", number),
        "taken_for_keyword": ("taken for a keyword", number),
        "rate": ("rate", percent),
        "most_often": ("most often for", None),
    }
    return table("Unknown folders", rows, columns)


def speaker_table(evaluation: Evaluation) -> Table:
    """The speakers with the lowest accuracy, of those with enough clips to tell."""
    least = evaluation.metrics["by_speaker"]["least_clips"]
    rows = evaluation.tables["speakers"]
    rows = rows[rows["clips"] >= least].head(MOST_SPEAKERS)
    columns: Any = {"speaker": ("speaker", None), "clips": ("clips", number), **_ACCURACY}
    return of_frame(f"Lowest accuracies by speaker ({least} clips or more)", _with_interval(rows), columns)


def noise_table(evaluation: Evaluation) -> Table:
    """Accuracy in noise."""
    rows = _with_interval(evaluation.tables["noise"])
    columns: Any = {"split": ("split", None), "snr_db": ("signal-to-noise", decibels), "clips": ("clips", number)}
    return of_frame("Accuracy in noise", rows, {**columns, **_ACCURACY})


def wrong_table(evaluation: Evaluation) -> Table:
    """The clips most confidently wrong."""
    rows = evaluation.tables["confidently_wrong"].head(MOST_WRONG)
    columns: Any = {
        "clip": ("clip", None),
        "label": ("label", None),
        "predicted": ("taken for", None),
        "confidence": ("score of that", fixed(3)),
        "label_score": ("score of the label", fixed(3)),
        "level_db": ("level", decibels),
    }
    return of_frame("Most confidently wrong", rows, columns)


def cost_table(cost: dict[str, Any]) -> Table:
    """What the model costs, a line each."""
    frames, bins = cost["features"]
    latency, threads = cost["latency_ms"], cost["threads"]["intra_op"]
    seconds = "a clip of nominal length"

    def known(value: int | None, form: Any) -> str:
        return "–" if value is None else form(value)

    def kilobytes(value: int) -> str:
        return f"{value / 1000:,.1f} kB"

    rows = [
        ("parameters", number(cost["parameters"]), "all values of the network, running statistics too"),
        ("trained", number(cost["trained"]), "those that gradients change"),
        ("folded", known(cost["folded"], number), "what inference keeps: batch normalisation folded into its layer"),
        ("multiply-adds", known(cost["multiply_adds"], number), f"of {seconds}: features of {frames} × {bins}"),
        ("float32", known(cost["float32_bytes"], kilobytes), "the folded weights alone, in kB of 1,000 bytes"),
        ("int8", known(cost["int8_bytes"], kilobytes), "the same, a byte a weight and four a bias"),
        ("model.keras", kilobytes(cost["model_file_bytes"]), "the file, with the front end"),
        (
            "latency",
            f"{latency['median']:.2f} ms",
            f"median of {latency['calls']} calls, one clip each, from samples to logits ({latency['low']:.2f} to"
            f" {latency['high']:.2f} ms: the middle 80 %), at the end of training in its own process, with"
            f" threads.intra_op={threads}, on {cost['machine']['processor']}",
        ),
    ]
    columns: Any = {"what": ("what", None), "value": ("how much", None), "how": ("counted how", None)}
    return table("Costs", [dict(zip(columns, row, strict=True)) for row in rows], columns)


_ACCURACY: dict[str, Any] = {"accuracy": ("accuracy", percent), "interval": ("95 % interval", str)}


def _with_interval(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = zip(rows["accuracy_low"].tolist(), rows["accuracy_high"].tolist(), strict=True)
    return rows.assign(interval=[interval(list(pair)) for pair in pairs])


def export_table(contents: RunContents) -> Table:
    """The files of all exports, each beside the original."""
    columns = [
        Column("export"),
        *(Column(heading, heading not in ("model", "takes")) for heading in export_tables.HEADINGS),
    ]
    rows = []
    for artifact in contents.exports:
        name = f"{artifact.format}, {artifact.quantize}"
        rows += [[cell(name), *(cell(text or None) for text in row)] for row in export_tables.rows(artifact)]
    return Table("Exports: accuracy on the test split, clips on which they agree with the original", columns, rows)


def listening_table(stream: Listening) -> Table:
    """The fewest misses for so many false accepts an hour."""
    columns: Any = {
        "false_accepts_per_hour_at_most": ("false accepts an hour, at most", fixed(1)),
        "miss_rate": ("missed", percent),
        "threshold": ("at threshold", fixed(4)),
    }
    return table(f"Fewest misses: {stream.name}", stream.metrics["operating_points"], columns)


def listening_told(stream: Listening) -> str:
    """What came of the recording at the chosen threshold, in a sentence or two."""
    found = stream.metrics
    told = (
        f"{60 * found['hours']:.0f} minutes with {found['keywords']} keywords and {found['unknown_words']} other words."
        f" At threshold {found['detection_threshold']:g}: {found['correct']} correct, {found['missed']} missed"
        f" ({percent(found['miss_rate'])}), {found['wrong']} wrong, {found['false_accepts']} false accepts"
        f" ({found['false_accepts_per_hour']:.1f} an hour)."
    )
    median = found["latency_ms"]["median"]
    return told if median is None else f"{told} Detected {median:.0f} ms after the word's end (median)."
