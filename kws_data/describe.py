"""What a data set holds, as a table."""

from __future__ import annotations

import pandas as pd

from kws_data.splits import SPLITS


def summary(clips: pd.DataFrame, sample_rate: int | None = None) -> pd.DataFrame:
    """A row per word and split: `clips`, `speakers`, `hours`.

    Args:
        clips: rows with `word`, `split`, `speaker`, and `length` (samples at `sample_rate`), or, where `sample_rate` is
            None, `num_samples` and `sample_rate` of each file.
    """
    seconds = clips["num_samples"] / clips["sample_rate"] if sample_rate is None else clips["length"] / sample_rate
    grouped = clips.assign(seconds=seconds).groupby(["word", "split"])
    table = grouped.agg(clips=("path", "size"), speakers=("speaker", "nunique"), hours=("seconds", "sum")).reset_index()
    table["hours"] = (table["hours"] / 3600).round(4)
    order = {split: index for index, split in enumerate(SPLITS)}
    return table.sort_values(
        ["word", "split"], key=lambda column: column.map(order) if column.name == "split" else column
    )
