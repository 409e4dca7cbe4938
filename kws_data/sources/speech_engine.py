"""Text-to-speech by espeak-ng, through ctypes.

The library and its voices come in the wheel of `espeakng-loader`. espeak-ng is GPL-3.0, so it is an optional extra
and this project contains no part of it. The functions called here are those of its public header, speak_lib.h.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from kws_data.errors import KwsError

ENGINE_RATE = 22_050  # Hz, the engine's only rate
MIN_RATE_WPM, MAX_RATE_WPM = 80, 450  # espeakRATE_MINIMUM, espeakRATE_MAXIMUM

_SYNCHRONOUS, _DONT_EXIT, _BUFFER_MS = 2, 0x8000, 2_000
_RATE, _VOLUME, _PITCH, _PITCH_RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_UTF8, _BY_CHARACTER = 1, 1
_IPA = 2  # of espeak_TextToPhonemes
# The engine stores its data path in a buffer of about 160 bytes; a longer one is silently replaced by a default path.
_LONGEST_DATA_PATH = 140

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
Result = TypeVar("Result")

_one_at_a_time = threading.Lock()  # the state of the library and C's rand() belong to the process


class SpeechEngine:
    """espeak-ng without state: the samples depend on the arguments of `speak` alone.

    The library keeps state between utterances that no call of its interface resets (pitch flutter, gain control,
    echo, noise), and the samples of an utterance, even their number, depend on it. So the library is opened and closed
    for every utterance, which takes 0.2 of about 3 ms (Linux). This works as long as nothing else in the process keeps
    the library open.

    Safe to use from several threads, one at a time.

    Raises:
        KwsError: the extra that brings the engine is not installed, or the engine does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise KwsError(
                "speech synthesis needs the package espeakng-loader: install the extra, `pip install -e '.[speech]'`"
            ) from None
        self._library_path = espeakng_loader.get_library_path()
        data_path = espeakng_loader.get_data_path()
        self._short_path: tempfile.TemporaryDirectory[str] | None = None
        if len(os.fsencode(data_path)) > _LONGEST_DATA_PATH:
            self._short_path = tempfile.TemporaryDirectory(prefix="kws-", ignore_cleanup_errors=True)
            Path(self._short_path.name, "data").symlink_to(data_path)
            data_path = str(Path(self._short_path.name, "data"))
        self._data_path = os.fsencode(data_path)
        self._c_library = ctypes.CDLL(None)
        self._c_library.dlclose.argtypes = [ctypes.c_void_p]
        self._chunks: list[bytes] = []
        self._callback = _Callback(self._collect)
        self.version = self._with_library(_version)

    def speak(
        self, text: str, voice: str, *, rate_wpm: int = 175, pitch: int = 50, pitch_range: int = 50, noise_seed: int = 1
    ) -> np.ndarray:
        """Say `text`: [samples] int16 at ENGINE_RATE, with the engine's own short silences around it.

        Args:
            text: plain text, one word or several.
            voice: `<language>+<variant>`, such as `en-US+f3`. An unknown variant is ignored by the engine.
            rate_wpm: words per minute, from MIN_RATE_WPM to MAX_RATE_WPM.
            pitch: 0 to 99; 50 is the voice's own.
            pitch_range: 0 to 99; 0 is monotonous, 50 is the voice's own.
            noise_seed: seed of the breath in the voice.

        Raises:
            KwsError: there is no such language.
        """

        def synthesize(library: ctypes.CDLL) -> np.ndarray:
            library.espeak_ng_SetRandSeed(ctypes.c_long(noise_seed))
            self._c_library.srand(ctypes.c_uint(noise_seed))
            _set_voice(library, voice)
            settings = {_RATE: rate_wpm, _VOLUME: 100, _PITCH: pitch, _PITCH_RANGE: pitch_range, _WORD_GAP: 0}
            for parameter, value in settings.items():
                library.espeak_SetParameter(parameter, int(value), 0)
            encoded = text.encode()
            self._chunks.clear()
            status = library.espeak_Synth(
                encoded, ctypes.c_size_t(len(encoded) + 1), 0, _BY_CHARACTER, 0, _UTF8, None, None
            )
            if status != 0:
                raise KwsError(f"the speech engine could not say '{text}' (its status: {status})")
            library.espeak_Synchronize()
            return np.frombuffer(b"".join(self._chunks), np.int16)

        return self._with_library(synthesize)

    def phonemes(self, texts: Sequence[str], language: str) -> list[str]:
        """How `texts` are pronounced: one string of the engine's IPA each, with stress and length marks.

        Raises:
            KwsError: there is no such language.
        """

        def translate(library: ctypes.CDLL) -> list[str]:
            _set_voice(library, language)
            library.espeak_TextToPhonemes.restype = ctypes.c_char_p
            return [" ".join(_clauses(library, text)) for text in texts]

        return self._with_library(translate)

    def _with_library(self, use: Callable[[ctypes.CDLL], Result]) -> Result:
        """Open the library, call `use` with it, and close it."""
        with _one_at_a_time:
            try:
                library = ctypes.CDLL(self._library_path)
            except OSError as error:
                raise KwsError(f"cannot load the speech engine '{self._library_path}': {error}") from None
            try:
                if library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, self._data_path, _DONT_EXIT) != ENGINE_RATE:
                    data_path = os.fsdecode(self._data_path)
                    raise KwsError(
                        f"the speech engine does not start with its data in '{data_path}'; reinstall espeakng-loader"
                    )
                library.espeak_SetSynthCallback(self._callback)
                return use(library)
            finally:
                library.espeak_Terminate()
                self._c_library.dlclose(library._handle)

    def _collect(self, samples: int | None, count: int, events: int | None) -> int:
        """Called by the engine with each piece of speech; 0 asks it to go on."""
        del events
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise KwsError(f"the speech engine has no voice '{voice}'; give a language of espeak-ng, such as en-US+f3")


def _clauses(library: ctypes.CDLL, text: str) -> Iterator[str]:
    """The phonemes of each clause of a text; the engine moves the pointer to the next, and to null at the end."""
    rest = ctypes.c_char_p(text.encode())
    while rest.value is not None:
        yield library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode()


def _version(library: ctypes.CDLL) -> str:
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode()
