"""Make other words out of the clips: halves of words, and halves of two words joined."""

from __future__ import annotations

import numpy as np

from kws_data.augment.active import active_regions
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws
from kws_data.errors import KwsError

_FADE_MS = 8


class Impostor(WaveformStage):
    """Turn some clips into examples of the unknown class that sound like keywords and are none.

    A small data set has few other words, and a network tells its keywords by any part that is unique among them: the
    'st' of 'stop' then fires for 'star'. A part of a word, and the first half of one word joined to the second half of
    another, are other words by the same voices through the same channel. Rows of the silence class stay as they are.

    Args:
        probability: the share of clips that become unknown.
        joined: the share of these that are made of two words; of the others, one part stays.
        part: [shortest, longest] share of the word that stays of one word.
    """

    def __init__(self, probability: float = 0.1, joined: float = 0.5, part: tuple[float, float] = (0.3, 0.55)) -> None:
        self.probability = check_probability("probability", probability)
        self.joined = check_probability("joined", joined)
        self.part = check_range("part", part, 0, 1)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Change the samples and the labels of the chosen rows."""
        if context.unknown is None:
            raise KwsError("augment.waveform.impostor makes unknown words: set task.unknown=true, or leave it out")
        room = context.room(batch)
        chance, kind, side, share = draws.uniform("impostor", 4).T
        chosen = np.flatnonzero((chance < self.probability) & ~batch.silence)
        others = context.words[draws.integers("other word", max(1, len(context.words)))[chosen]]
        if not len(chosen) or not len(context.words):
            return {}
        partners = context.gather(others)
        fade = context.sample_rate * _FADE_MS // 1000
        first, past = active_regions(batch.pcm[chosen], room[chosen], context.sample_rate)
        theirs, their_end = active_regions(partners.pcm, partners.lengths, context.sample_rate)
        labels = batch.labels.copy()
        for index, row in enumerate(chosen):
            clip, start, end = batch.pcm[row, : room[row]], first[index], past[index]
            if end - start < 4 * fade:
                continue
            fraction = self.part[0] + share[row] * (self.part[1] - self.part[0])
            joined = kind[row] < self.joined and partners.labels[index] != batch.labels[row]
            if joined:
                middle = start + (end - start) // 2
                half = (theirs[index] + their_end[index]) // 2
                piece = partners.pcm[index, half : their_end[index]]
                _cut_after(clip, middle, fade)
                _add(clip, middle - fade // 2, piece, fade)
            elif side[row] < 0.5:
                _cut_after(clip, start + int(fraction * (end - start)), fade)
            else:
                _cut_before(clip, end - int(fraction * (end - start)), fade)
            labels[row] = context.unknown
        batch.labels = labels
        return {}


def _cut_after(clip: np.ndarray, at: int, fade: int) -> None:
    ramp = np.linspace(1, 0, fade)
    tail = clip[at : at + fade]
    tail[:] = tail * ramp[: len(tail)]
    clip[at + fade :] = 0


def _cut_before(clip: np.ndarray, at: int, fade: int) -> None:
    begin = max(0, at - fade)
    head = clip[begin:at]
    head[:] = head * np.linspace(0, 1, fade)[fade - len(head) :]
    clip[:begin] = 0


def _add(clip: np.ndarray, at: int, piece: np.ndarray, fade: int) -> None:
    size = min(len(piece), len(clip) - at)
    if size <= fade:
        return
    faded = piece[:size].astype(np.float32)
    faded[:fade] *= np.linspace(0, 1, fade)
    into = clip[at : at + size]
    into[:] = np.clip(into + faded, -32768, 32767)
