"""Why a repeated run may differ from the original: what their environments say, the likeliest first."""

from __future__ import annotations

from typing import Any

# Packages whose arithmetic or drawing a result goes through, the nearest first
_NUMERIC = (
    "tensorflow", "tensorflow-cpu", "tensorflow-macos", "keras", "numpy", "scipy", "soxr", "soundfile",
    "audiomentations", "tensorflow-io", "librosa", "numba", "numpy-minmax", "numpy-rms", "python-stretch", "ml-dtypes",
    "pandas", "h5py",
)  # fmt: skip
_NAMED = 8  # of flags or packages, in one line
_NOTHING = "nothing"


def likely_causes(sessions: list[dict[str, Any]], now: dict[str, Any]) -> list[str]:
    """Differences from the recorded environments that may change numbers, a line each.

    Args:
        sessions: of the original run.
        now: of the repeated one.
    """
    then = sessions[-1]
    causes = [
        *_code(then["code"], now["code"]),
        *_mapping("your own code or files", _short(then.get("own_code", {})), _short(now.get("own_code", {}))),
        *_packages(then["packages"], now["packages"]),
        *_processor(then["processor"], now["processor"]),
        *_plain("accelerators", then.get("accelerators"), now.get("accelerators")),
        *_mapping("settings", then.get("settings", {}), now.get("settings", {})),
        *_mapping("environment variables", then.get("variables", {}), now.get("variables", {})),
        *_mapping("Python", then.get("python", {}), now.get("python", {})),
        *_plain("platform", then.get("platform"), now.get("platform")),
    ]
    if len(sessions) > 1:
        causes.append(f"the run was trained in {len(sessions)} environments, one after the other: see environment.json")
    if not now.get("settings", {}).get("deterministic", True):
        causes.append("deterministic=false: some operations give other bits each time")
    return causes


def _code(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if then.get("sources") == now.get("sources"):  # commits that leave the project's Python files alone don't matter
        return []
    versions = [f"{_version(code)}" for code in (then, now)]
    if versions[0] == versions[1]:
        return ["code: the project's Python files differ"]
    return [f"code: {versions[0]} → {versions[1]}"]


def _version(code: dict[str, Any]) -> str:
    if code.get("commit") is None:
        return f"files {code.get('sources', '?')[:12]}"
    changes = f" with uncommitted changes ({code['diff_sha256'][:8]})" if code.get("dirty") else ""
    return f"commit {code['commit'][:12]}{changes}"


def _packages(then: dict[str, str], now: dict[str, str]) -> list[str]:
    differing = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    numeric = [name for name in _NUMERIC if name in differing]
    others = [name for name in differing if name not in _NUMERIC]
    causes = [f"version of {name}: {then.get(name, 'none')} → {now.get(name, 'none')}" for name in numeric]
    if others:
        listed = [f"{name} {then.get(name, 'none')} → {now.get(name, 'none')}" for name in others]
        causes.append(f"versions of packages that hardly matter: {_few(listed)}")
    return causes


def _processor(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    causes = _plain("processor", then.get("model"), now.get("model"))
    flags = [set(each.get("flags", ())) for each in (then, now)]
    if flags[0] != flags[1]:
        lost, gained = sorted(flags[0] - flags[1]), sorted(flags[1] - flags[0])
        causes.append(f"processor's flags: without {_few(lost)}; with {_few(gained)}")
    return causes + _plain("processor's cores", then.get("cores"), now.get("cores"))


def _mapping(what: str, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{what}: {name} {then.get(name, 'not there')} → {now.get(name, 'not there')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _plain(what: str, then: Any, now: Any) -> list[str]:
    return [] if then == now else [f"{what}: {then or _NOTHING} → {now or _NOTHING}"]


def _short(digests: dict[str, str]) -> dict[str, str]:
    return {name: digest[:12] for name, digest in digests.items()}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}" if names else _NOTHING
