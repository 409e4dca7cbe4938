"""The clips, the noise and the running speech that a stream is made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kws_data.catalog import SILENCE
from kws_data.corpus import Corpus
from kws_data.errors import KwsError
from kws_data.splits import TESTING, TRAINING
from kws_data.streams.speech import Speech


@dataclass(frozen=True)
class StreamSource:
    """Clips of one split, by the rows of `corpus.clips`, and that split's part of the noise.

    Attributes:
        corpus: clips and noise.
        keywords: [clips] rows of the task's words.
        unknown: [clips] rows of all other words.
        split: the split of clips and noise.
        origin: where the clips are from, for the stream's record.
        speech: running speech; None if there is none.
    """

    corpus: Corpus
    keywords: np.ndarray
    unknown: np.ndarray
    split: str = TESTING
    origin: dict[str, Any] = field(default_factory=dict)
    speech: Speech | None = None

    @classmethod
    def of_split(
        cls,
        corpus: Corpus,
        words: Collection[str],
        split: str = TESTING,
        origin: dict[str, Any] | None = None,
        *,
        unknown_folders: Collection[str] = (),
    ) -> StreamSource:
        """All clips of a split but silence: those of `words` as keywords, the others as unknown words.

        As in the task, other words from folders beside the data set take part in training alone, unless they are
        `unknown_folders`.

        Raises:
            KwsError: no clip of `words` is in the split.
        """
        clips = corpus.clips[(corpus.clips["split"] == split) & (corpus.clips["word"] != SILENCE)]
        wanted = clips["word"].isin(words)
        other = ~wanted & ((split == TRAINING) | clips["folder"].isin(["", *unknown_folders]))
        if not wanted.any():
            raise KwsError(
                f"split: no clip of the task's words in '{corpus.roots[0]}' is for {split}; choose another split="
            )
        return cls(corpus, clips.index[wanted].to_numpy(), clips.index[other].to_numpy(), split, origin or {})

    def twin(self, row: int, chance: float) -> int:
        """Another clip of the same word by the same speaker, drawn by `chance` in [0, 1); `row` itself if none is."""
        clip = self.corpus.clips.loc[row]
        alike = self._by_word_and_speaker[clip["word"], clip["speaker"]]
        others = alike[alike != row]
        return int(others[int(chance * len(others))]) if len(others) else row

    @cached_property
    def _by_word_and_speaker(self) -> dict[tuple[str, str], np.ndarray]:
        clips = self.corpus.clips.loc[np.concatenate([self.keywords, self.unknown])]
        return {key: group.index.to_numpy() for key, group in clips.groupby(["word", "speaker"])}

    def samples(self, row: int) -> np.ndarray:
        """[samples] int16 of a row of the corpus's clips."""
        clip = self.corpus.clips.loc[row]
        return self.corpus.pcm[clip["source"]][clip["offset"] : clip["offset"] + clip["length"]]
