"""Where a data set's folder comes from: the user's disk, a download, or a speech synthesiser (`conf/dataset/`)."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kws_data.checks import check_choice, check_list, check_path, check_whole
from kws_data.layout import LAYOUTS
from kws_data.sources import archives, download
from kws_data.sources.words import V001_WORDS
from kws_data.storage.atomic import lock_for
from kws_data.storage.cache import datasets_dir

log = logging.getLogger(__name__)


class Dataset(Protocol):
    """What `conf/dataset/` instantiates."""

    speaker_pattern: str | None
    layout: str
    licence: str | None
    citation: str | None

    def locate(self) -> Path:
        """The folder; downloaded or made first if it does not exist.

        Raises:
            KwsError: it does not exist and cannot be made.
        """


class Folder:
    """A folder on the user's disk: `path/<word>/<clip>`, or with folders of splits above the words; see `Naming`."""

    def __init__(
        self,
        path: str,
        speaker_pattern: str | None = None,
        licence: str | None = None,
        citation: str | None = None,
        layout: str = "auto",
    ) -> None:
        self.path = check_path("path", path).expanduser()
        self.layout = check_choice("layout", layout, LAYOUTS)
        if speaker_pattern is not None:
            try:
                re.compile(speaker_pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"speaker_pattern must be a regular expression, got {speaker_pattern!r}") from error
        self.speaker_pattern, self.licence, self.citation = speaker_pattern, licence, citation

    def locate(self) -> Path:
        """The folder as given; the scan raises if it does not exist."""
        return self.path


class Published:
    """A published archive, downloaded once into the cache folder.

    Its folders are words; `layout` is also that of the folders beside it (`task.unknown_dirs`, `noise.dirs`).
    """

    speaker_pattern, layout = None, "auto"

    def __init__(self, name: str) -> None:
        self.archive = archives.named(name)
        self.licence: str | None = self.archive.licence
        self.citation: str | None = self.archive.citation

    def locate(self) -> Path:
        """The extracted folder in the cache."""
        return download.fetch(self.archive)


class Synthetic:
    """Words spoken by text-to-speech, made once into the cache folder; see `synthesis.synthesize`."""

    speaker_pattern: str | None = None
    layout = "words"  # any word may be said, also 'train' and 'test'
    licence: str | None = "none needed (made on this machine by the speech synthesiser eSpeak NG, without a recording)"
    citation: str | None = None

    def __init__(
        self, words: Sequence[str] | None = None, clips_per_word: int = 100, voices: int = 100, seed: int = 0
    ) -> None:
        self.words = list(V001_WORDS if words is None else check_list("words", words))
        self.clips_per_word = check_whole("clips_per_word", clips_per_word, 1)
        self.voices = check_whole("voices", voices, 1)
        self.seed = check_whole("seed", seed, 0)

    def locate(self) -> Path:
        """The folder in the cache, named by a hash of the arguments."""
        from kws_data.sources import synthesis

        made_from = [synthesis.VERSION, self.words, self.clips_per_word, self.voices, self.seed]
        name = f"synthetic-{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]}"
        folder = datasets_dir() / name
        if not folder.is_dir():
            with lock_for(folder):
                if not folder.is_dir():
                    log.info("making the synthetic data set, once: %d words in %d voices", len(self.words), self.voices)
                    synthesis.synthesize(
                        folder, words=self.words, clips_per_word=self.clips_per_word, voices=self.voices, seed=self.seed
                    )
        return folder
