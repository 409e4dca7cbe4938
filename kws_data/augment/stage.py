"""The interface of every waveform augmentation, and the batch that it works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.draws import Draws
from kws_data.noise import NoiseBank

if TYPE_CHECKING:
    from tensorflow import Tensor
else:
    Tensor = Any  # stages import TensorFlow only where they use it: workers must not

SAMPLES = None  # in a parameter's shape: as wide as the batch
Shapes = dict[str, tuple[str, tuple[int | None, ...]]]


@dataclass
class ClipBatch:
    """A batch of clips as gathered from the store, before the graph.

    Attributes:
        pcm: [batch, samples] int16, zeros after each clip's end.
        lengths: [batch] int32, the true lengths in samples.
        labels: [batch] int32.
        ids: [batch] int64, the examples' ids.
        silence: [batch] bool, rows made of noise alone, to which no stage adds noise.
        second_labels: [batch] int32, the labels of the clips mixed in; None where clips are not mixed.
        label_weights: [batch] float32, the weight of `labels`; `second_labels` have the rest.
    """

    pcm: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    silence: np.ndarray
    second_labels: np.ndarray | None = None
    label_weights: np.ndarray | None = None


@dataclass(frozen=True)
class StageContext:
    """What a stage may use besides the batch.

    Attributes:
        noise: the background noise; stages use the part for `split`.
        split: the split of the batch's examples.
        sample_rate: Hz.
        clip_samples: the length that every clip is padded or cut to; None where clips keep their lengths.
        words: ids of the split's examples except silence rows.
        gather: from ids to their clips, not augmented.
        unknown: the label of the unknown class; None where the task has none.
    """

    noise: NoiseBank
    split: str
    sample_rate: int
    clip_samples: int | None
    words: np.ndarray
    gather: Callable[[np.ndarray], ClipBatch]
    unknown: int | None = None

    def room(self, batch: ClipBatch) -> np.ndarray:
        """[batch] samples of each row that a stage may fill; the rest pads a clip to its batch."""
        return batch.lengths if self.clip_samples is None else np.full(len(batch.pcm), self.clip_samples)


class WaveformStage(ABC):
    """One augmentation: `prepare` draws its parameters (NumPy), `apply` uses them (in the graph, on the batch).

    The two are separate so that random values depend on `Draws` alone, wherever and however often the graph runs. A
    stage that only moves samples does so in `prepare`, where it is cheapest: on the int16 batch.
    """

    @abstractmethod
    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Draw one value per clip for each parameter; may change `batch.pcm` in place.

        Returns:
            arrays with the batch as first axis, as `parameter_shapes` declares them.
        """

    def parameter_shapes(self) -> Shapes:
        """Name → (dtype, shape after the batch axis) of what `prepare` returns; SAMPLES is the batch's width."""
        return {}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same shape."""
        del parameters
        return waveform

    def close(self) -> None:  # noqa: B027 - most stages have nothing to release
        """Release what outlives a batch, such as worker processes; most stages have nothing."""
