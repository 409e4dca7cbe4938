"""Open a trained run, or an export of one, as a Scorer."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.config.allowed import refused_in_config
from kws_experiments.export import front_end
from kws_experiments.export.artifact import RECORD, Artifact, ModelFile, content_hash, read_artifact
from kws_experiments.export.formats.base import find_format
from kws_experiments.export.scorer import KerasScorer, Scorer, run_facts
from kws_experiments.runs.files import GIVE_MODEL
from kws_experiments.runs.folder import RunFolder, no_run
from kws_experiments.runs.trust import require_no_way_out, require_trust


def load_scorer(path: Path) -> Scorer:
    """Open the model at `path`.

    Args:
        path: the folder of a finished run, the folder of one of its exports, or a model in the latter.

    Raises:
        KwsError: it is not one of these, it is damaged, or it is from elsewhere and names code of its own.
    """
    if not path.exists():
        raise no_run(path, GIVE_MODEL)
    folder = path if (path / RECORD).is_file() else path.parent
    if (folder / RECORD).is_file():
        require_no_way_out(folder)
        artifact = read_artifact(folder)
        require_trust(folder, folder / RECORD, _wanted(artifact))
        files = {file.file: file for file in artifact.files}
        file = artifact.files[0] if folder == path else files.get(path.name)
        if file is None:
            raise KwsError(f"'{path}' is no model of this export, which has {', '.join(files)}")
        return load_export(folder, artifact, file)
    if path.is_file():
        raise KwsError(f"'{path}': there is no {RECORD} beside it; give a run's folder or an export's, whole")
    return load_run(path)


def _wanted(artifact: Artifact) -> str | None:
    """What an export would run beside models of formats that can only compute."""
    if find_format(artifact.format, f"'{RECORD}': format").runs_programs:
        return f"it is a {artifact.format}, a program that can read and write files"
    if artifact.requires:
        return f"requires names {', '.join(map(str, artifact.requires))}"
    return refused_in_config({"features": artifact.front_end.get("config")})


def load_export(folder: Path, artifact: Artifact, file: ModelFile) -> Scorer:
    """Open one model of an export.

    Raises:
        KwsError: it is missing, is not what was exported, or cannot be run here.
    """
    path = folder / file.file
    if path.parent != folder or path.name in ("", ".."):
        raise KwsError(f"'{folder / RECORD}': '{file.file}' is not in the export's folder: export the run again")
    try:
        size, sha256 = content_hash(path)
    except OSError as error:
        raise KwsError(f"'{path}': {error.strerror or error}") from error
    if sha256 != file.sha256:
        raise KwsError(f"'{path}' is not what was exported ({size:,} of {file.bytes:,} bytes): export the run again")
    format = find_format(artifact.format, f"'{folder / RECORD}': format")
    try:
        for name in artifact.requires:
            pkgutil.resolve_name(name)
        infer = format.load(path)
        features = None
        if file.takes != "waveform":
            features = front_end.rebuilt(artifact.front_end, artifact.clip_samples, artifact.streaming)
        scorer = Scorer(artifact.facts, infer, features)
        found = scorer.scores(np.zeros((1, scorer.clip_samples or scorer.sample_rate), np.float32))
    except ImportError as error:
        extra = "io" if error.name == "tensorflow_io" else artifact.format
        raise KwsError(f"'{path}' needs the package {error.name}: pip install -e '.[{extra}]'") from error
    except Exception as error:  # of whatever kind: each runtime has its own
        reason = " ".join(str(error).split())[:200]
        raise KwsError(f"'{path}' can't be loaded as {RECORD} describes it: {reason}: export the run again") from error
    if found.shape != (1, len(scorer.labels)):
        raise KwsError(
            f"'{path}' gives {list(found.shape)} scores of one clip, but {RECORD} names {len(scorer.labels)} labels:"
            " export the run again"
        )
    return scorer


def load_run(run: Path, clip_samples: int | None = None) -> KerasScorer:
    """Open a run's own model.

    Args:
        run: the folder.
        clip_samples: the one length of all clips, for a run that keeps lengths.

    Raises:
        KwsError: `run` is no folder of a finished run, or its model is damaged.
    """
    from kws_experiments.runs.saved_model import load_model

    facts = run_facts(run, clip_samples)
    model = load_model(run)
    if model.output_shape[-1] != len(facts.labels):
        raise KwsError(
            f"'{RunFolder(run).labels}' names {len(facts.labels)} labels, but the model beside it has"
            f" {model.output_shape[-1]} outputs"
        )
    return KerasScorer(model, facts)
