"""A split's features on disk, computed once for all runs that evaluate on the same samples with the same front end."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np
import tensorflow as tf

from kws_data.features.base import FeatureLayer
from kws_data.pipeline import ClipSource, evaluation_batches, evaluation_plan, host_batches
from kws_data.storage.atomic import lock_for, replace_dir
from kws_data.storage.cache import features_dir
from kws_data.storage.seal import is_intact, seal

log = logging.getLogger(__name__)

_BATCHES = "batches"  # prefix of the file names


def cached_evaluation_batches(
    source: ClipSource, split: str, features: FeatureLayer, identity: Any, *, threads: int
) -> tf.data.Dataset:
    """The bits of `pipeline.evaluation_batches`, read from the cache folder once any run has computed them.

    Args:
        source: fills batches with samples.
        split: the split of the examples.
        features: a built feature layer.
        identity: plain data of what else the bits depend on: the layer's configuration and code, and the machine's
            arithmetic. The samples and the layer's weights are hashed here.
        threads: batches computed at once; changes nothing but speed.
    """
    batches = evaluation_batches(source, split, features, threads=threads)
    form = repr(batches.element_spec)  # the same samples may have one length for all, or each its own
    folder = features_dir() / _key(source, split, features, [identity, form], threads)
    try:
        with lock_for(folder):
            if not is_intact(folder):
                if folder.is_dir():
                    log.warning("'%s' is damaged: its features are computed again", folder)
                with replace_dir(folder) as temporary:
                    for _ in batches.cache(str(temporary / _BATCHES)):
                        pass
                    seal(temporary)
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        log.warning("'%s': can't cache features there; they are computed for this run only (%s)", folder, reason)
        return batches
    return batches.cache(str(folder / _BATCHES))


def _key(source: ClipSource, split: str, features: FeatureLayer, identity: Any, threads: int) -> str:
    """16 hex digits that name the features. The samples are hashed, so whatever they depend on is included."""
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8)
    for weight in features.weights:
        digest.update(np.asarray(weight).tobytes())
    plan = evaluation_plan(source, split)
    stream = host_batches(source, split, plan, steps=plan.steps_per_epoch, threads=threads)
    for batch in stream.as_numpy_iterator():
        for name, values in sorted(batch.items()):
            digest.update(f"{name} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
