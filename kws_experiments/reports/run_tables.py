"""The tables of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from kws_data.splits import SPLITS
from kws_experiments.config.command import Difference
from kws_experiments.evaluation import intervals
from kws_experiments.export import table as export_tables
from kws_experiments.reports.contents import Evaluation, Listening, RunContents
from kws_experiments.reports.tables import (
    DASH,
    Column,
    Columns,
    Format,
    Table,
    cell,
    decibels,
    fixed,
    number,
    percent,
    table,
)

MOST_ASIDE, MOST_SPEAKERS, MOST_WRONG = 50, 20, 30
_BY_SPLIT: Columns = {split: (split, number) for split in SPLITS}
_ACCURACY: Columns = {"accuracy": ("accuracy", percent), "interval": ("95 % interval", str)}


def interval(low_high: Sequence[float] | None) -> str:
    """[0.901, 0.945] → `90.1 to 94.5 %`."""
    if low_high is None:
        return "not known"
    low, high = low_high
    return f"{100 * low:.1f} to {percent(high)}"


def per_hour(low_high: Sequence[float] | None) -> str | None:
    """[1.84, 5.2] → `1.8 to 5.2`."""
    return "{:.1f} to {:.1f}".format(*low_high) if low_high else None


_CONDITIONS = {  # of long recordings
    "recording": "recording",
    "snr_db": "signal-to-noise, dB",
    "room": "room",
    "channel": "channel",
    "word": "word",
    "speaker": "speaker",
}
_LEFT_OUT = {
    "by_clip": "missed, each clip left out in turn",
    "by_speaker": "each speaker left out in turn",
    "validation": "clips for validation",
}


def known(value: float | None, form: Format) -> str:
    """The formatted value, or a dash."""
    return DASH if value is None else form(value)


def tiles(contents: RunContents) -> list[tuple[str, str, str]]:
    """(name, value, remark) of the main results."""
    metrics, cost = contents.own.metrics, contents.cost
    error_rate = metrics["detection"]["mean_equal_error_rate"]
    found = [
        (f"Accuracy, {metrics['split']}", percent(metrics["accuracy"]), interval(metrics["accuracy_95"])),
        ("Macro-F1", percent(metrics["macro_f1"]), interval(metrics["macro_f1_95_by_speaker"])),
        ("Equal error rate", known(error_rate, percent), "mean of the keywords"),
        ("Calibration error", percent(metrics["calibration"]["expected_calibration_error"]), "expected"),
    ]
    if cost:
        found += [
            ("Parameters", number(cost["parameters"]), f"{number(cost['trained'])} trained"),
            ("Multiply-adds", known(cost["multiply_adds"], lambda count: f"{count / 1e6:.2f} M"), "per clip"),
            ("Latency", f"{cost['latency_ms']['median']:.2f} ms", "per clip, this machine"),
        ]
    return found


def difference_table(found: list[Difference], experiment: str | None) -> Table:
    """What was changed, group or key by key."""
    default = "default" if experiment is None else f"default of {experiment}"
    columns = {"key": "group or key", "default": default, "value": "this run"}
    return table("Differences from the defaults", map(vars, found), columns, sortable=False)


def label_table(contents: RunContents) -> Table:
    """Examples by label and split."""
    sums = ", ".join(f"{number(int(contents.label_counts[split].sum()))} {split}" for split in SPLITS)
    return table(f"Examples by label: {sums}", contents.label_counts, {"label": "label", **_BY_SPLIT})


def catalog_table(contents: RunContents) -> Table:
    """The data set's clips by word and split, before the task draws from them."""
    catalog = contents.catalog
    counts = catalog.pivot(index="word", columns="split", values="clips").reindex(columns=list(SPLITS)).fillna(0)
    counts = counts.astype(int).assign(hours=catalog.groupby("word")["hours"].sum()).reset_index()
    title = f"Clips by word: {number(int(catalog['clips'].sum()))}, {catalog['hours'].sum():.2f} hours"
    return table(title, counts, {"word": "word", **_BY_SPLIT, "hours": ("hours", fixed(3))})


def aside_table(contents: RunContents) -> Table:
    """The first files that were not used."""
    rows = contents.set_aside
    title = f"Files set aside: {number(len(rows))}"
    if len(rows) > MOST_ASIDE:
        title += f", the first {MOST_ASIDE} of them here and all in data/set_aside.csv"
    return table(title, rows.head(MOST_ASIDE), {"path": "file", "split": "split", "error": "reason"})


def class_table(evaluation: Evaluation) -> Table:
    """Classification and detection by class."""
    metrics = evaluation.metrics
    keywords, rates = metrics["detection"]["keywords"], metrics["at_thresholds"]
    rows = [
        {"label": label, **keywords.get(label, {}), **rates.get(label, {}), **values}
        for label, values in metrics["per_class"].items()
    ]
    columns: Columns = {
        "label": "class",
        "clips": ("clips", number),
        "precision": ("precision", percent),
        "recall": ("recall", percent),
        "f1": ("F1", percent),
        "auc": ("area under ROC", fixed(4)),
        "equal_error_rate": ("equal error rate", percent),
        "threshold": ("at threshold", fixed(3)),
        "false_accept_rate": ("false accepts", percent),
        "false_reject_rate": ("false rejects", percent),
    }
    return table("By class", rows, columns)


def new_word_table(found: dict[str, Any]) -> Table:
    """What is missed of words that were added, on clips that their outputs were not fitted to."""
    rows = [
        {"word": word, "clips": values["clips"], **{what: _missed(values.get(what)) for what in _LEFT_OUT}}
        for word, values in found["words"].items()
    ]
    return table("New words", rows, {"word": "word", "clips": ("own clips", number), **_LEFT_OUT}, sortable=False)


def _missed(misses: dict[str, Any] | None) -> str | None:
    if misses is None:
        return None
    return f"{misses['missed']} of {misses['clips']} ({interval(misses['miss_rate_95'])})"


def pair_table(evaluation: Evaluation) -> Table:
    """The most frequent confusions."""
    rows = [{**pair, "rate": pair["clips"] / pair["of"]} for pair in evaluation.metrics["worst_pairs"]]
    columns: Columns = {"label": "label", "predicted": "taken for", "clips": ("clips", number), "of": ("of", number)}
    return table("Most frequent confusions", rows, {**columns, "rate": ("rate", percent)})


def folder_table(evaluation: Evaluation) -> Table:
    """Unknown folders, and how often their clips were taken for keywords."""
    rows = [{"folder": folder, **values} for folder, values in evaluation.metrics["unknown_folders"].items()]
    columns: Columns = {
        "folder": "unknown folder",
        "clips": ("clips", number),
        "taken_for_keyword": ("taken for a keyword", number),
        "rate": ("rate", percent),
        "most_often": "most often for",
    }
    return table("Unknown folders", rows, columns)


def speaker_table(evaluation: Evaluation) -> Table:
    """The speakers with the lowest accuracy, of those with enough clips."""
    least = evaluation.metrics["by_speaker"]["least_clips"]
    rows = evaluation.tables["speakers"]
    rows = _with_interval(rows[rows["clips"] >= least].head(MOST_SPEAKERS))
    title = f"Lowest accuracies by speaker ({least} clips or more)"
    return table(title, rows, {"speaker": "speaker", "clips": ("clips", number), **_ACCURACY})


def noise_table(evaluation: Evaluation) -> Table:
    """Accuracy in noise."""
    columns: Columns = {"split": "split", "snr_db": ("signal-to-noise", decibels), "clips": ("clips", number)}
    return table("Accuracy in noise", _with_interval(evaluation.tables["noise"]), {**columns, **_ACCURACY})


def wrong_table(evaluation: Evaluation) -> Table:
    """The most confidently wrong clips."""
    columns: Columns = {
        "clip": "clip",
        "label": "label",
        "predicted": "taken for",
        "confidence": ("score of that", fixed(3)),
        "label_score": ("score of the label", fixed(3)),
        "level_db": ("level", decibels),
    }
    return table("Most confidently wrong", evaluation.tables["confidently_wrong"].head(MOST_WRONG), columns)


def _with_interval(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = rows[["accuracy_low", "accuracy_high"]].to_numpy().tolist()
    return rows.assign(interval=[interval(pair) for pair in pairs])


def cost_table(cost: dict[str, Any]) -> Table:
    """What the model costs, a line each."""
    frames, bins = cost["features"]
    latency, threads = cost["latency_ms"], cost["threads"]["intra_op"]

    def kilobytes(size: int) -> str:
        return f"{size / 1000:,.1f} kB"

    rows = [
        ("parameters", number(cost["parameters"]), "all values of the network, running statistics too"),
        ("trained", number(cost["trained"]), "those that gradients change"),
        ("folded", known(cost["folded"], number), "at inference: batch normalisation folded into the layer before"),
        (
            "multiply-adds",
            known(cost["multiply_adds"], number),
            f"of a clip of nominal length: features of {frames} × {bins}",
        ),
        ("float32", known(cost["float32_bytes"], kilobytes), "the folded weights alone, in kB of 1,000 bytes"),
        ("int8", known(cost["int8_bytes"], kilobytes), "the same with one byte a weight and four a bias"),
        ("model.keras", kilobytes(cost["model_file_bytes"]), "the file, with the front end"),
        (
            "latency",
            f"{latency['median']:.2f} ms",
            f"median of {latency['calls']} calls, one clip each, from samples to logits ({latency['low']:.2f} to"
            f" {latency['high']:.2f} ms: the middle 80 %), at the end of training in its own process, with"
            f" threads.intra_op={threads}, on {cost['machine']['processor']}",
        ),
    ]
    columns = {"what": "what", "value": "how much", "how": "how it is counted"}
    return table("Costs", [dict(zip(columns, row, strict=True)) for row in rows], columns, sortable=False)


def export_table(contents: RunContents) -> Table:
    """The files of all exports, each beside the original."""
    columns = [Column(heading, heading not in ("model", "takes")) for heading in export_tables.HEADINGS]
    rows = [
        [cell(text or None) for text in (artifact.title, *row)]
        for artifact in contents.exports
        for row in export_tables.rows(artifact)
    ]
    title = "Exports: accuracy on the test split, and clips on which they agree with the original"
    return Table(title, [Column("export"), *columns], rows, sortable=False)


def sensitivity_table(tuned: dict[str, dict[str, Any]]) -> Table:
    """What `kws tune` measured at each sensitivity."""
    rows = []
    for name, values in tuned.items():
        asked, measured = values["false_accepts_per_hour_asked"], values["measured"]
        by_snr = {f"snr {row['snr_db']}": row["miss_rate"] for row in measured["by_snr"]}
        apart = {kind: intervals.as_text(rate) for kind, rate in measured.get("apart", {}).items()}
        rate = intervals.as_text(measured)
        rows.append(
            {"name": name, "asked": asked, "rate": rate, **apart, "claim": intervals.claim(measured, asked), **by_snr}
        )
    snrs = [row["snr_db"] for row in next(iter(tuned.values()))["measured"]["by_snr"]]
    columns: Columns = {
        "name": "sensitivity",
        "asked": ("asked, an hour at most", number),
        "rate": "false accepts",
        **({"words": "among words", "speech": "in running speech"} if "speech" in rows[0] else {}),
        "claim": "with 95 % confidence",
        **{f"snr {snr_db}": (f"missed at {snr_db:g} dB", percent) for snr_db in snrs},
    }
    return table("Sensitivities", rows, columns, sortable=False)


def tuned_threshold_table(tuned: dict[str, dict[str, Any]]) -> Table:
    """Each word's thresholds."""
    words = next(iter(tuned.values()))["thresholds"]
    rows = [{"word": word, **{name: tuned[name]["thresholds"][word] for name in tuned}} for word in words]
    return table("Thresholds on averaged scores", rows, {"word": "word", **{name: (name, fixed(3)) for name in tuned}})


def listening_table(stream: Listening) -> Table:
    """The fewest misses for each rate of false accepts."""
    columns: Columns = {
        "false_accepts_per_hour_at_most": ("at most", fixed(1)),
        "interval": ("95 % interval", str),
        "claim": "with 95 % confidence",
        "miss_rate": ("missed", percent),
        "missed": ("95 % interval", str),
        "threshold": ("at threshold", fixed(4)),
    }
    points = [
        {
            **point,
            "interval": per_hour(point.get("false_accepts_per_hour_95")),  # earlier versions had none of these
            "claim": intervals.claim(point, point["false_accepts_per_hour_at_most"]) if "shown" in point else None,
            "missed": interval(point["miss_rate_95"]) if point.get("miss_rate_95") else None,
        }
        for point in stream.metrics["operating_points"]
    ]
    return table(f"Fewest misses by false accepts an hour: {stream.name}", points, columns)


def condition_tables(stream: Listening) -> list[Table]:
    """Misses and false accepts under each condition that has several values."""
    rows = stream.conditions
    for rate, form in (("miss_rate", interval), ("false_accepts_per_hour", per_hour)):
        pairs = rows[[f"{rate}_low", f"{rate}_high"]].to_numpy().tolist()
        found = [form(pair) if there else None for pair, there in zip(pairs, rows[rate].notna(), strict=True)]
        rows = rows.assign(**{f"{rate}_95": found})
    columns: Columns = {
        "said": ("keywords", number),
        "miss_rate": ("missed", percent),
        "miss_rate_95": ("95 % interval", str),
        "latency_ms": ("latency, ms", fixed(0)),
        "false_accepts": ("false accepts", number),
    }
    hourly: Columns = {
        "hours": ("hours", fixed(2)),
        "false_accepts_per_hour": ("an hour", fixed(1)),
        "false_accepts_per_hour_95": ("95 % interval", str),
    }
    return [
        table(f"By {title}", part, {"value": title, **columns, **(hourly if part["hours"].notna().any() else {})})
        for condition, title in _CONDITIONS.items()
        if len(part := rows[rows["condition"] == condition])
    ]
