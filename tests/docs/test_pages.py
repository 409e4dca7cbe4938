"""The pages say what exists: links, commands, options, choices and keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kws_experiments.cli.main import app
from kws_experiments.config.compose import CONF, compose_unresolved, fingerprint, resolved
from tests.browser import open_browser
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, commands, inline_commands, name_of

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_MANDATORY = {"dataset=folder": "dataset.path=/nowhere", "dataset=table": "dataset.path=/nowhere.csv"}

every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def kws_commands(page: Path) -> list[list[str]]:
    return [words[1:] for words in [*commands(page), *inline_commands(page)] if words[0] == "kws"]


def python_commands(page: Path, *program: str) -> list[list[str]]:
    """The arguments of `python PROGRAM`."""
    found = [*commands(page), *inline_commands(page)]
    length = 1 + len(program)
    return [words[length:] for words in found if words[:length] == ["python", *program]]


def training_commands(page: Path) -> list[list[str]]:
    return python_commands(page, "train.py")


def test_readme_is_for_the_first_day() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@every_page
def test_relative_links_resolve(page: Path) -> None:
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = match["target"].partition("#")[0]
        if target and "://" not in target:
            assert (page.parent / target).exists(), match[0]


def options_of(words: list[str]) -> tuple[set[str], set[str], set[str]]:
    """Of a kws command: the options that it knows, those that it needs, and those that are given."""
    command, rest = typer.main.get_command(app), words
    while (subcommands := getattr(command, "commands", None)) and rest and not rest[0].startswith("-"):
        assert rest[0] in subcommands, f"kws {' '.join(words)}: no command '{rest[0]}'"
        command, rest = subcommands[rest[0]], rest[1:]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    needed = {option.opts[0] for option in options if option.required}
    return known, needed, {word.partition("=")[0] for word in rest if word.startswith("--")}


@every_page
def test_kws_commands_and_their_options_exist(page: Path) -> None:
    for words in kws_commands(page):
        known, _, given = options_of(words)
        assert given <= known, f"kws {' '.join(words)}: no option {given - known}"


@every_page
def test_kws_commands_to_copy_have_the_options_that_they_need(page: Path) -> None:
    for words in commands(page):
        if words[0] == "kws" and "--help" not in words:
            _, needed, given = options_of(words[1:])
            assert needed <= given, f"{' '.join(words)}: needs {needed - given}"


@every_page
def test_benchmarks_exist(page: Path) -> None:
    for words in python_commands(page, "-m"):
        package, _, name = words[0].partition(".")
        assert package in ("benchmarks", "venv"), words
        assert not name or (ROOT / "benchmarks" / f"{name}.py").is_file(), words


def test_the_reference_has_every_module() -> None:
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    documented = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    for package in ("kws_data", "kws_models", "kws_experiments"):
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if module not in ("kws_data", "kws_experiments") and not module.startswith("kws_experiments.cli"):
                assert any(f"{module}.".startswith(f"{known}.") for known in documented), f"docs/api lacks {module}"


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    """The configs that the pages describe, as a reader would have written them."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.title and block.title.startswith("my_conf/"):
                path = tmp_path / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
    (tmp_path / "my_conf").mkdir(exist_ok=True)
    return tmp_path / "my_conf"


@every_page
def test_training_commands_compose(page: Path, own_conf: Path) -> None:
    for words in training_commands(page):
        if "--help" in words:
            continue
        overrides = [word for word in words if not word.startswith("-") and word != "my_conf"]
        sweep = "-m" in words
        overrides = [_first_choice(word) if sweep else word for word in overrides]
        for choice, path in _MANDATORY.items():
            if choice in overrides and not any(word.startswith("dataset.path=") for word in overrides):
                overrides.append(path)
        own = own_conf if "--config-dir" in words else None
        composed = compose_unresolved(overrides, own, with_hydra=True)
        fingerprint(resolved(composed))  # what it lacks is found by resolving


def _first_choice(override: str) -> str:
    """What the first job of a sweep gets: `seed=1,2` → `seed=1`; a range of a search is left out of the test."""
    key, _, value = override.partition("=")
    if value.startswith("tag("):
        return f"{key}=0.001"
    return override if value.startswith(("[", "{")) else f"{key}={value.partition(',')[0]}"


@every_page
def test_choices_in_kws_commands_exist(page: Path, own_conf: Path) -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for words in kws_commands(page):
        for word in words:
            group, equals, choice = word.removeprefix("+").partition("=")
            if equals and group.partition("/")[0] in groups and "." not in group:
                for name in choice.strip("[]").split(","):
                    assert any((root / group / f"{name}.yaml").is_file() for root in (CONF, own_conf)), word


def test_the_checks_find_commands() -> None:
    """So that a change of the pages' form can't empty them."""
    assert sum(len(kws_commands(page)) for page in PAGES) > 50
    assert sum(len(training_commands(page)) for page in PAGES) > 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, built as strictly as `make docs` does."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {path.relative_to(DOCS) for path in DOCS.rglob("*.md")} <= built
    reference = (site / "api" / "streaming.html").read_text(encoding="utf-8")
    assert 'id="kws_experiments.streaming.listener.open_listener"' in reference
    start = (site / "index.html").read_text(encoding="utf-8")
    assert "<title>Train, compare and reproduce keyword spotters - kws</title>" in start


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url))
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri(), wait_until="networkidle")
    assert len(loaded) > len(list(site.rglob("*.html")))
    assert not [address for address in loaded if not address.startswith(("file:", "data:", "blob:"))]
