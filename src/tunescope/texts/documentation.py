"""Texts that every Python installation carries: its own documentation.

Nothing is downloaded and nothing is imported but `pydoc_data`; the standard library's sources are parsed, never run.
Counts differ a little between Python versions, because the documentation does: the source line names the version.
"""

from __future__ import annotations

import ast
import importlib
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from tunescope.errors import TextsError

MIN_WORDS = 8  # a paragraph shorter than this is a heading, a signature or a caption

PACKAGES = ("asyncio", "email", "importlib", "logging", "xml")  # of the standard library, those with the most docstrings

# Tests hold deliberately broken sources, and the others are programs whose docstrings describe windows and menus.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "ensurepip", "pydoc_data"}
)

_BULLET = re.compile(r"^(?:[*•-]|\d{1,2}[.)])\s+")
_EMPHASIS = re.compile(r"(?<!\w)(\*\*?)(?=\S)(.+?)(?<=\S)\1(?!\w)")  # *name*, **Note:**
_ROLE = re.compile(r":[a-z:]+:`~?([^`]+)`")  # :func:`open`
_FOOTNOTE = re.compile(r"\s*\[\d+\]_?(?=[\s.,;:)]|$)")
_STATEMENT = r"^\s*(?:def|class|import|from|return|with|for|if|while|try)\b.*:$"
_CODE = re.compile(rf">>>|^\.\.\s|::=|[{{}}]|\s=\s|\s==\s|\w\(.*\):$|{_STATEMENT}", re.MULTILINE)
_BROKEN_WORD = re.compile(r"(?<=[a-z])-\n\s*(?=[a-z])")  # pseudo-<newline>compiled
_RULE = re.compile(r"[-=*~^#+|_]{3,}")


def documentation_source() -> str:
    """Where the demo texts come from, in words, e.g. `the documentation that ships with Python 3.11.7`."""
    return f"the documentation that ships with Python {platform.python_version()}"


def paragraphs() -> list[str]:
    """Prose paragraphs (at least 8 words) of Python's language reference: about 1,200, each once, always in the same order.

    Headings, grammar, code, tables and signatures are left out, and reST marks are removed. Raises `TextsError` where this Python
    was installed without its documentation topics.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise TextsError(f"{documentation_source()}: module pydoc_data is not installed; give texts of your own (--texts)") from error
    return list(dict.fromkeys(text for name in sorted(topics) for text in _prose(topics[name])))


def docstring_pairs() -> list[tuple[str, str]]:
    """(summary, prose after it) of the standard library's docstrings: about 2,200 pairs, each summary and each body once, sorted by file.

    Modules, classes and functions alike. The sources are parsed with `ast` and none is imported.
    Raises `TextsError` where the sources are not on disk.
    """
    by_summary: dict[str, str] = {}
    for path in _sources():
        for docstring in _docstrings(path):
            summary, body = _split(docstring)
            if summary and body:
                by_summary.setdefault(summary, body)
    by_body = {body: summary for summary, body in reversed(by_summary.items())}  # the first summary of a body wins
    return [(summary, body) for summary, body in by_summary.items() if by_body[body] == summary]


def labelled_docstrings() -> list[tuple[str, str]]:
    """(prose, package) of docstrings of five packages of the standard library (`PACKAGES`): about 1,000, each once, sorted by file.

    The prose is the summary and what follows it, without the package's own name wherever it stands as a word.
    Raises `TextsError` as `docstring_pairs`.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, str] = {}
    for path in _sources():
        package = path.relative_to(root).parts[0]
        if package in PACKAGES:
            own = re.compile(rf"\b{package}\b", re.IGNORECASE)
            for docstring in _docstrings(path):
                prose = own.sub("…", " ".join(part for part in _split(docstring) if part))
                if len(prose.split()) >= MIN_WORDS:
                    found.setdefault(prose, package)
    return list(found.items())


def _sources() -> list[Path]:
    """The files of the standard library that are read, sorted by their place in it."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        (path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts[:-1])),
        key=lambda path: path.relative_to(root).as_posix(),
    )
    if not files:
        raise TextsError(f"{root}: the standard library's sources are not here (*.py); give pairs of your own")
    return files


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # old escapes in sources that are not ours
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def _split(docstring: str) -> tuple[str, str]:
    """The summary (first paragraph, at least 3 words) and the prose after it; either is empty when there is none worth keeping."""
    head, _, rest = docstring.partition("\n\n")
    summary = _plain(head)
    wordy = 3 <= len(summary.split()) <= 40 and not _CODE.search(head)
    return summary if wordy else "", " ".join(_prose(rest))


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are sentences, as one line each."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if not _RULE.search(line)]
        for item in _items(_without_term(lines)):
            plain = _plain(item)
            if _is_sentence(plain) and not _CODE.search(item):
                yield plain


def _without_term(lines: list[str]) -> list[str]:
    """Drop the term of a definition list: a first line that the ones below it are indented under."""
    if len(lines) > 1 and not _BULLET.match(lines[0].strip()) and _indent(lines[1]) > _indent(lines[0]):
        return lines[1:]
    return lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _items(lines: list[str]) -> Iterator[str]:
    """Bullets that follow each other without a blank line are paragraphs of their own."""
    item: list[str] = []
    for line in lines:
        if _BULLET.match(line.strip()) and item:
            yield "\n".join(item)
            item = []
        item.append(line)
    if item:
        yield "\n".join(item)


def _plain(text: str) -> str:
    """`text` on one line, without reST marks: bullets, emphasis, roles, literal quotes and footnote numbers."""
    line = _BULLET.sub("", " ".join(_BROKEN_WORD.sub("-", text).split()))
    line = _FOOTNOTE.sub("", _EMPHASIS.sub(r"\2", _ROLE.sub(r"\1", line)))
    return re.sub(r"\s?::$", ":", line.replace("`", "").strip())


def _is_sentence(text: str) -> bool:
    words = text.split()
    wordlike = sum(bool(re.fullmatch(r"[\"'(]?[A-Za-z][a-z'’-]*[\"')]?[.,;:!?]?", word)) for word in words)
    return len(words) >= MIN_WORDS and text[0].isalnum() | (text[0] in "\"'(") and text[-1] in ".:!?)\"" and wordlike >= 0.6 * len(words)
