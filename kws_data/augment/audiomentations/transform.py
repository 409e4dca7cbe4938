"""Build an audiomentations transform from YAML, and run it on clips one at a time, repeatably.

Workers import this module: no TensorFlow here.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import os
import random
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from kws_data.audio import INT16_SCALE
from kws_data.errors import KwsError

DRAWS_PER_CLIP = 3  # a seed for each generator that transforms draw from
_HYDRA_KEYS = frozenset({"_target_", "_args_", "_recursive_", "_convert_", "_partial_"})
_NOT_FINITE = "it returned samples that are not finite (NaN or infinity)"
_TO_FLOAT = np.float32(1 / INT16_SCALE)
_GENERATORS = threading.Lock()  # they belong to the process: one clip at a time

Transform = Callable[[np.ndarray, int], np.ndarray]


class ClipTransform:
    """The transform that `config` describes, run on int16 clips.

    Args:
        config: a mapping with `_target_` and parameters.
        owns_process: nothing else in this process draws from its generators, so their states need not be restored.

    Raises:
        ValueError: no such class or parameter, or a value that a transform refuses; the message starts with its key.
    """

    def __init__(self, config: Mapping[str, Any], *, owns_process: bool = False) -> None:
        self._owns_process = owns_process
        if not isinstance(config, Mapping) or "_target_" not in config:
            raise ValueError("transform must be a mapping with a _target_ (with _recursive_: false beside it)")
        transform = build(config, "transform")
        if not callable(transform):
            raise ValueError(f"transform: {config['_target_']} is not a transform: it can't be called")
        self._parts: list[_Named] = []
        # Kept, as allocating memory for every clip takes longer than the conversions that fill it.
        self._samples, self._scaled = np.empty(0, np.float32), np.empty(0, np.float32)
        self._transform = _named(transform, "transform", self._parts)

    def run(self, pcm: np.ndarray, lengths: np.ndarray, ids: np.ndarray, seeds: np.ndarray, sample_rate: int) -> None:
        """Change clips in place; restore the process's generators afterwards (unless `owns_process`).

        Args:
            pcm: [clips, samples] int16; samples beyond a clip's length stay.
            lengths: [clips], samples, at least 1.
            ids: [clips], the examples' ids, for error messages.
            seeds: [clips, DRAWS_PER_CLIP] uint64.
            sample_rate: Hz.

        Raises:
            KwsError: a transform failed or didn't return a finite waveform; the message names it and the clip.
        """
        from python_stretch import Signalsmith

        with _GENERATORS:
            states = None if self._owns_process else (random.getstate(), np.random.get_state())
            stretch = Signalsmith.Stretch
            try:
                for row, length, clip_id, (seed, numpy_seed, stretch_seed) in zip(
                    pcm, lengths.tolist(), ids.tolist(), seeds.tolist(), strict=True
                ):
                    # TimeStretch draws in C++ when it stretches to more than double, by default with a random seed.
                    Signalsmith.Stretch = functools.partial(stretch, stretch_seed >> 33)  # type: ignore[assignment,misc]
                    clip = row[:length]
                    try:
                        changed = self._changed(clip, sample_rate, seed, numpy_seed)
                        if not self._store(changed, clip):
                            self._find_culprit(clip, sample_rate, seed, numpy_seed)
                    except _TransformError as error:
                        raise KwsError(f"audiomentations: {error.name} failed on clip {clip_id}: {error}") from error
            finally:
                Signalsmith.Stretch = stretch  # type: ignore[misc]
                if states is not None:
                    random.setstate(states[0])
                    np.random.set_state(states[1])

    def _changed(self, clip: np.ndarray, sample_rate: int, seed: int, numpy_seed: int) -> np.ndarray:
        if len(self._samples) < len(clip):
            self._samples, self._scaled = np.empty(len(clip), np.float32), np.empty(len(clip), np.float32)
        samples = self._samples[: len(clip)]
        np.copyto(samples, clip)
        samples *= _TO_FLOAT
        random.seed(seed)
        np.random.seed(numpy_seed >> 32)
        return self._transform(samples, sample_rate)

    def _store(self, changed: np.ndarray, clip: np.ndarray) -> bool:
        """Write `changed` (float, [-1, 1]) over `clip` (int16), cut or zero-filled; False if not finite."""
        count = min(len(changed), len(clip))
        if count:
            out = self._scaled[:count] if changed.dtype == np.float32 else None
            scaled = np.multiply(changed[:count], changed.dtype.type(INT16_SCALE), out=out)
            low, high = float(scaled.min()), float(scaled.max())  # NaN if any sample is
            if not (low >= -32768 and high <= 32767):
                if not (math.isfinite(low) and math.isfinite(high)):
                    return False
                np.clip(scaled, scaled.dtype.type(-32768), scaled.dtype.type(32767), out=scaled)  # as to_int16
            np.rint(scaled, out=clip[:count], casting="unsafe")
        if count < len(clip):
            clip[count:] = 0
        return True

    def _find_culprit(self, clip: np.ndarray, sample_rate: int, seed: int, numpy_seed: int) -> NoReturn:
        """Run the clip again and check the result of each transform, which is too slow for every clip."""
        for part in self._parts:
            part.checks_values = True
        self._changed(clip, sample_rate, seed, numpy_seed)
        raise _TransformError("transform", _NOT_FINITE)  # the transform at fault draws from a generator of its own


def build(node: Any, place: str) -> Any:
    """As Hydra's `instantiate`, but errors start with `place`, the key of `node`, and suggest the nearest name."""
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [build(item, f"{place}.{number}") for number, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return os.path.expanduser(node) if isinstance(node, str) else node  # noqa: PTH111 - most are no paths
    parameters = {str(key): build(value, f"{place}.{key}") for key, value in node.items() if key not in _HYDRA_KEYS}
    if "_target_" not in node:
        return parameters
    target, name = _locate(str(node["_target_"]), place)
    arguments = build(node.get("_args_", []), f"{place}._args_")
    if node.get("_partial_"):
        return functools.partial(target, *arguments, **parameters)
    _check_parameters(target, name, arguments, parameters, place)
    if name == "SomeOf" and isinstance(parameters.get("num_transforms"), list):
        parameters["num_transforms"] = tuple(parameters["num_transforms"])  # YAML has no tuples, SomeOf takes no lists
    try:
        built = target(*arguments, **parameters)
    except Exception as error:
        raise ValueError(f"{place}: {name}: {_reason(error)}") from error
    for files in (
        "sound_file_paths",
        "ir_files",
    ):  # found in the order of the file system, which differs between copies
        if isinstance(getattr(built, files, None), list):
            getattr(built, files).sort()
    return built


def _locate(path: str, place: str) -> tuple[Callable[..., Any], str]:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{place}: cannot import '{module_name}' of '{path}': {_reason(error)}") from error
    target = getattr(module, name, None)
    if not callable(target):
        names = [known for known in dir(module) if inspect.isclass(getattr(module, known))]
        raise ValueError(f"{place}: {module_name} has no {name}{_nearest(name, names)}")
    return target, name


def _check_parameters(
    target: Callable[..., Any], name: str, arguments: list[Any], parameters: dict[str, Any], place: str
) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some built-in functions have none
        return
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for key in parameters:
            if key not in signature.parameters:
                known = list(signature.parameters)
                raise ValueError(
                    f"{place}: {name} has no parameter {key}{_nearest(key, known)} (it takes {', '.join(known)})"
                )
    try:
        signature.bind(*arguments, **parameters)
    except TypeError as error:
        raise ValueError(f"{place}: {name}: {error}") from error


def _nearest(name: str, known: list[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[nearest[0]]}?" if nearest else ""


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError) and not text:
        # audiomentations checks many values by assertions without a message
        return f"not so: {traceback.extract_tb(error.__traceback__)[-1].line}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _TransformError(Exception):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class _Named:
    """A transform that names its key in the configuration when it fails."""

    def __init__(self, transform: Transform, place: str) -> None:
        self._transform = transform
        self._name = f"{place} ({getattr(transform, '__name__', type(transform).__name__)})"
        self.checks_values = False

    def __call__(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        try:
            changed = self._transform(samples, sample_rate)
        except _TransformError:
            raise  # a transform inside it failed
        except Exception as error:
            raise _TransformError(self._name, _reason(error)) from error
        if not isinstance(changed, np.ndarray) or changed.ndim != 1 or changed.dtype.kind != "f":
            raise _TransformError(self._name, "it didn't return an array of floats [samples]")
        if self.checks_values and not np.isfinite(changed).all():
            raise _TransformError(self._name, _NOT_FINITE)
        return changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transform, name)


def _named(transform: Any, place: str, parts: list[_Named]) -> Transform:
    """Wrap a transform and those that it is composed of, and append all of them to `parts`."""
    children = getattr(transform, "transforms", None)
    if isinstance(children, list):
        places = (f"{place}.transforms.{number}" for number in range(len(children)))
        transform.transforms = [_named(child, where, parts) for child, where in zip(children, places, strict=True)]
    parts.append(_Named(transform, place))
    return parts[-1]
