"""The settings of `conf/trainer/` and `conf/tune/`, checked; imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kws_data.checks import check_flag, check_list, check_number, check_whole, require
from kws_data.streams.plan import MINUTES, StreamSettings
from kws_experiments.runs.listening import TUNED

MONITORS = {"val_accuracy": 1, "val_loss": -1, "val_miss_rate": -1}  # 1 if more is better, -1 if less is
CLASS_BALANCES = ("none", "weights", "sampling")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class TrainerSettings:
    """The settings of `conf/trainer/`; the YAML describes each key.

    Raises:
        ValueError: naming the key.
    """

    batch_size: int
    epochs: int | None
    steps: int | None
    eval_every: int | None
    checkpoint_every: int
    early_stopping: int | None
    monitor: str
    restore_best: bool
    label_smoothing: float
    word_loss: float
    distillation: float
    class_balance: str
    ema_momentum: float | None
    precision: str
    jit_compile: bool | None
    print_confusion: bool
    tensorboard: bool

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "epochs and steps must not both be given or both be null,"
                f" got {self.epochs} and {self.steps}; trainer.epochs=null trains by steps"
            )
        for name in ("batch_size", "checkpoint_every"):
            check_whole(name, getattr(self, name), 1)
        for name in ("epochs", "steps", "eval_every", "early_stopping"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in ("restore_best", "print_confusion", "tensorboard"):
            check_flag(name, getattr(self, name))
        if self.jit_compile is not None:
            check_flag("jit_compile", self.jit_compile)
        check_number("label_smoothing", self.label_smoothing, 0, 0.99)
        check_number("word_loss", self.word_loss, 0, 0.99)
        check_number("distillation", self.distillation, 0, 1)
        if self.ema_momentum is not None:
            check_number("ema_momentum", self.ema_momentum, 0, 0.999999)
        for name, choices in (("monitor", MONITORS), ("class_balance", CLASS_BALANCES), ("precision", PRECISIONS)):
            if getattr(self, name) not in tuple(choices):
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got '{getattr(self, name)}'")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


@dataclass(frozen=True)
class TuneSettings:
    """What is asked for, and on which streams it is chosen.

    Attributes:
        false_accepts_per_hour: at most so many with low, medium and high sensitivity.
        snrs_db: a stream of words for each, and one of running speech, if there is any; speech above noise in dB.
        minutes: the length of each stream of words.
        seed: of the first stream of words; the others have those after it, streams of running speech those below 0.
        repeat_percentage: percentage of words that are said twice in a row.
        speech: running speech without keywords: SYNTHETIC, a folder of recordings, or None.
        speech_minutes: the length of each stream of running speech.

    Raises:
        ValueError: naming the attribute.
    """

    false_accepts_per_hour: tuple[float, ...] = (0.5, 2.0, 10.0)
    snrs_db: tuple[float, ...] = (0.0, 10.0, 20.0)
    minutes: float = 15.0
    seed: int = 0
    repeat_percentage: float = 10.0
    speech: str | None = None
    speech_minutes: float = 15.0

    def __post_init__(self) -> None:
        rates = check_list("false_accepts_per_hour", self.false_accepts_per_hour)
        for rate in rates:
            check_number("false_accepts_per_hour", rate, 0.001, 10_000)
        in_order = len(rates) == len(TUNED) and list(rates) == sorted(set(rates))
        require(in_order, "false_accepts_per_hour", "three rates, the lowest first", ",".join(f"{r:g}" for r in rates))
        require(bool(check_list("snrs_db", self.snrs_db)), "snrs_db", "at least one number", "none")
        check_whole("seed", self.seed)
        is_text = isinstance(self.speech, str) and bool(self.speech.strip())
        require(self.speech is None or is_text, "speech", "null, synthetic or a folder", self.speech)
        check_number("speech_minutes", self.speech_minutes, *MINUTES)
        self.streams()

    def streams(self) -> list[StreamSettings]:
        """The settings of each stream, those of running speech last."""
        words = [
            StreamSettings(
                self.minutes, (snr_db, snr_db), seed=self.seed + number, speech_percentage=0,
                repeat_percentage=self.repeat_percentage,
            )
            for number, snr_db in enumerate(self.snrs_db)
        ]  # fmt: skip
        if self.speech is None:
            return words
        # Seeds below 0, as `kws make-stream` has them from 0 on: no sentence both tunes a network and judges it.
        return words + [
            StreamSettings(self.speech_minutes, stream.snr_db, seed=-1 - stream.seed, speech_percentage=100)
            for stream in words
        ]


def best_row(history: list[dict[str, Any]], monitor: str) -> int:
    """The index of the best evaluation; of equally good ones the one with the lowest loss, then the first.

    NaN counts as infinitely bad: half precision may overflow in an early evaluation.
    """
    values = [MONITORS[monitor] * row[monitor] for row in history]
    ranks = np.nan_to_num([[value, -row["val_loss"]] for value, row in zip(values, history, strict=True)], nan=-np.inf)
    return max(range(len(history)), key=lambda index: tuple(ranks[index]))
