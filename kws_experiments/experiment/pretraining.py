"""The configuration of the training that comes before another: that one's, with the changes of its key `pretrain`."""

from __future__ import annotations

from typing import Any

from kws_data.errors import KwsError

_NOT_BEFORE: dict[str, Any] = {
    "pretrain": None,
    "start_from": None,
    "loggers": {},
    "tune": None,
    "report": False,
    "force": False,
}
_WHOLE = ("augment",)  # replaced as a whole, as groups with a `_target_` are


def pretraining_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration to train first, or None without `pretrain`.

    A mapping in `pretrain` changes the keys that it names. One with a `_target_`, and `augment`, takes the place of the
    run's own. What isn't named is as in the run, but for loggers, tuning and the report: it has none.

    Raises:
        KwsError: `pretrain` names a key that no configuration has, or a training before its own.
    """
    changes = config["pretrain"]
    if changes is None:
        return None
    if not isinstance(changes, dict):
        raise KwsError(f"pretrain must be null, or hold changes to the configuration, got {changes!r}")
    for key in changes:
        if key not in config or key in ("pretrain", "start_from"):
            raise KwsError(f"pretrain.{key}: must be a key of the configuration, but not pretrain or start_from")
    return _changed(config | _NOT_BEFORE, changes)


def _changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(config)
    for key, value in changes.items():
        whole = not isinstance(value, dict) or "_target_" in value or key in _WHOLE
        inside = not whole and isinstance(config.get(key), dict)
        result[key] = _changed(config[key], value) if inside else value
    return result
