"""What is typed on a command line: words taken as typed, and in one line what Hydra can't read in it.

Imports no TensorFlow, and Hydra only where there is something to read.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from kws_data.errors import KwsError

# In a wheel the folder lies within the package, in a checkout beside it
CONF = next(each for each in (up / "conf" for up in Path(__file__).resolve().parents[1:3]) if each.is_dir())

_KEYED = re.compile(r"(\+{0,2}(?P<key>[A-Za-z_$][\w$./@:-]*)=)(?P<value>.*)", re.DOTALL)
_IN_QUOTES = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
_BARE = re.compile(rf"({_IN_QUOTES})|([^\s,[\](){{}}'\"](?:[^,[\](){{}}'\"]*[^\s,[\](){{}}'\"])?)", re.DOTALL)
_LIST = re.compile(r"\[[^[\]]*\]")
_ITEM = re.compile(rf"(?:{_IN_QUOTES}|[^,])+", re.DOTALL)
_AT_HOME = re.compile(r"""((?:(?:--[\w-]+|\+{0,2}hydra\.[\w.]+)=)?["']?)(~(?:["']|/.*)?)""", re.DOTALL)
_EXTRAS = {"hydra/launcher/submitit": "slurm"}


def with_home(arguments: list[str]) -> list[str]:
    """`~/…` in full, also where the shell leaves it: in `--option=~/…`, in quotes, and in `hydra.run.dir=~/…`."""
    found = [(argument, _AT_HOME.fullmatch(argument)) for argument in arguments]
    return [match[1] + os.path.expanduser(match[2]) if match else argument for argument, match in found]  # noqa: PTH111


def as_typed(arguments: list[str]) -> list[str]:
    """The arguments of a command line; words and choices that Hydra would take for numbers, true or null are quoted.

    `task.words=[0,1]` names the words '0' and '1'. Nothing else changes, so that a sweep keeps its name.

    Raises:
        KwsError: an argument has a value but no key.
    """
    return [_with_words_quoted(argument) for argument in arguments]


def _with_words_quoted(argument: str) -> str:
    if argument.lstrip("+~").startswith("="):
        raise KwsError(f"'{argument}' names no key: write KEY=VALUE")
    found = _KEYED.fullmatch(argument)
    if found is None:
        return argument
    key, value = found["key"], found["value"]
    if key.rpartition(".")[2] == "words":  # outside of a list, null takes all words
        return found[1] + _LIST.sub(lambda part: _BARE.sub(_as_text, part[0]), value)
    return found[1] + _BARE.sub(_as_text, value) if (CONF / key).is_dir() else argument


def _as_text(part: re.Match[str]) -> str:
    return quoted_text(part[2]) if part[2] and not isinstance(_parsed(part[2], "primitive"), str | None) else part[0]


def _parsed(text: str, rule: str) -> object:
    """What Hydra reads by a rule of its grammar; for null that type, and None for what it can't read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_rule(text, rule)
    except HydraException:
        return None
    return type(None) if value is None else value


def quoted_text(text: str) -> str:
    """A value that Hydra takes for this text."""
    from hydra.core.override_parser.types import Quote, QuotedString

    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # backslashes before an interpolation count twice
    return QuotedString(escaped, Quote.double).with_quotes()


def corrected(override: str) -> tuple[str, str] | None:
    """What to quote in an override that Hydra can't read, and the corrected one for a shell; None if it isn't clear.

    Of a list each item is quoted that needs it; any other value is quoted whole.
    """
    found = _KEYED.fullmatch(override)
    if found is None:
        return None
    unread = value = found["value"].strip()
    if value.startswith("[") and value.endswith(","):  # an item is missing too
        return None
    if value.startswith("[") and ("]" not in value or value.endswith("]")):
        items = [item.strip() for item in _ITEM.findall(value[1:].removesuffix("]"))]
        if any(bracket in item for item in items for bracket in "[{"):
            return None
        bad = [item for item in items if _parsed(item, "element") is None]
        unread = " and ".join(bad) or value
        value = f"[{','.join(quoted_text(item) if item in bad else item for item in items)}]"
    else:
        value = quoted_text(value)
    better = found[1] + value
    return None if _parsed(better, "override") is None else (unread, shlex.quote(better))


def hydra_message(error: Exception) -> str:
    """Hydra's message in one line: what to quote, which key or choice was meant, or the extra that brings a plugin."""
    from hydra.errors import MissingConfigException, OverrideParseException

    message = " ".join(str(error).split())
    missing = [extra for name, extra in _EXTRAS.items() if name in message and "Could not " in message]
    if missing:
        return f"{message}; it comes with the extra {missing[0]}: pip install -e '.[{missing[0]}]'"
    if isinstance(error, OverrideParseException):
        if joined := _divided(error.override):
            return f"{error.override}: the shell split this at its spaces; write {joined}"
        if better := corrected(error.override):
            return f"{error.override}: {better[0]} can't be read without quotes; write {better[1]}"
        return f"{error.override}: this can't be read; write KEY=VALUE, with double quotes around texts in the value"
    if found := re.match(r"Ambiguous value for argument '(.*)'\n1\. ", str(error), re.DOTALL):
        key, _, value = found[1].partition("=")
        one, several = (shlex.quote(f"{key}={form}") for form in (quoted_text(value), f"[{value}]"))
        return f"{found[1]}: for one text write {one}, for a list {several}; to sweep over the values, add -m"
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        others = near(choice, error.options) or f"; there are {', '.join(error.options)}"
        return f"{group}={choice}: {group} has no such choice{others}"
    if found := re.match(r"Could not (?:override|delete from config\.) '([^']*)'", message):
        return f"{found[1]}: there is no such key{_other_keys(found[1])}"
    return message


def _divided(override: str) -> str | None:
    """A list or mapping that the shell split at its spaces, as one argument for it; None for anything else."""
    arguments = sys.argv[1:]
    if not _is_open(override) or override not in arguments:
        return None
    first = arguments.index(override)
    for end in range(first + 1, len(arguments) + 1):
        joined = re.sub(r"([,:]) ", r"\1", " ".join(arguments[first:end]))
        if not _is_open(joined):
            readable = _parsed(joined, "override") is not None
            better = None if readable else corrected(joined)
            return shlex.quote(joined) if readable else better and better[1]
    return None


def _is_open(text: str) -> bool:
    return text.count("[") > text.count("]") or text.count("{") > text.count("}")


def _other_keys(key: str) -> str:
    """What a key that isn't there may have meant, as the end of a message."""
    known = _known_keys(key)
    parent, dot, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2] for other in known if dot and other.rpartition(".")[0] == parent}
    siblings -= {"defaults", "_target_"}
    if siblings:
        return near(name, siblings, prefix=f"{parent}.") or f"; {parent} has {', '.join(sorted(siblings))}"
    return near(key, known) or f"; to add one, write +{key}=…"


def _known_keys(key: str) -> set[str]:
    """Groups, keys of the defaults, and those of every choice in the group of a key."""
    from kws_experiments.config.compose import compose, flattened

    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()}
    known = groups | set(flattened(compose([])))
    group = key.partition(".")[0]
    for path in (CONF / group).glob("*.yaml"):
        known |= set(flattened(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, f"{group}."))
    return known


def near(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """What a mistyped name may have meant, as the end of a message; `prefix` is what all those known begin with."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
