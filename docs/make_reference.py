"""The reference pages of the command line and of the study file, made from the code.

python docs/make_reference.py        writes docs/cli.md and docs/study-file.md
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import textwrap
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from msnas_optuna.cli import app
from msnas_optuna.methods import METHODS
from msnas_optuna.study.config import StudyConfig
from msnas_optuna.study.keys import PLAIN, bounds, toml, unpacked, values

FOLDER: Final = Path(__file__).parent

NOTE: Final = (
    "Made from the code by `python docs/make_reference.py`: change the code, not this page."
)


def pages() -> dict[str, str]:
    """File name -> text of every page that is made from the code."""
    return {"cli.md": cli_page(), "study-file.md": study_file_page()}


def cli_page() -> str:
    """Every command with its arguments and options."""
    commands = {
        name: (command, typing.get_type_hints(command.callback, include_extras=True))
        for name, command in sorted(typer.main.get_command(app).commands.items())
    }
    contents = [(f"[{name}](#{name})", first_line(command.help)) for name, (command, _) in
                commands.items()]  # fmt: skip
    parts = ["# Command line", NOTE, table(("msnas", "what it does"), contents)]
    for name, (command, hints) in commands.items():
        parts += [f"## {name}", *command_section(name, command, hints)]
    return "\n\n".join(parts) + "\n"


def command_section(name: str, command: Any, hints: dict[str, Any]) -> Iterator[str]:
    """A usage line, the description, and a table of arguments and options.

    Args:
        name: the command as it is typed.
        command: as typer builds it from its function.
        hints: parameter -> annotation of that function.
    """
    usage, rows = ["msnas", name], []
    for parameter in command.params:
        if parameter.name not in hints:  # typer's own --help
            continue
        is_option = parameter.opts[0].startswith("-")
        value = option_value(hints[parameter.name], parameter.metavar) if is_option else ""
        shown = ", ".join(parameter.opts) if is_option else parameter.metavar
        if not is_option or parameter.required:
            usage.append(f"{shown} {parameter.name.upper()}" if is_option else shown)
        text = parameter.help or ""
        if parameter.envvar:
            text += f" `{parameter.envvar}` in the environment says the same."
        default = "required" if parameter.required else option_default(parameter.default)
        rows.append((code(shown), value, default, text))
    yield f"```text\n{' '.join(usage)} [OPTIONS]\n```"
    yield command.help
    yield table(("argument or option", "value", "default", "meaning"), rows)


def option_value(hint: Any, metavar: str | None) -> str:
    """What is typed after an option; nothing after a switch."""
    kind, *about = unpacked(hint)
    if kind is bool:
        return ""
    if metavar is not None:
        return metavar
    if typing.get_origin(kind) is list:
        (kind,) = typing.get_args(kind)
    if issubclass(kind, enum.Enum):
        return " or ".join(code(str(member.value)) for member in kind)
    limits = {"ge": about[-1].min, "le": about[-1].max}
    return PLAIN[kind] + bounds({name: end for name, end in limits.items() if end is not None})


def option_default(default: Any) -> str:
    """The default of an option; nothing where leaving it out has a meaning of its own."""
    if default is None or isinstance(default, bool):
        return ""
    return code(str(default.value if isinstance(default, enum.Enum) else default))


def study_file_page() -> str:
    """Every section of a study file with its keys."""
    parts = [
        "# Study file",
        NOTE,
        "A study file is TOML, and its paths are relative to it. A mistake is an error that names "
        "the key, the rule, the value that came and the repair.",
    ]
    hints, shown = typing.get_type_hints(StudyConfig), dict[type, str]()
    of_method = {
        "space": {name: method.section for name, method in METHODS.items()},
        "detector": {name: method.detector_section for name, method in METHODS.items()},
    }
    for field in dataclasses.fields(StudyConfig):
        if field.name not in of_method:
            parts += section(field.name, hints[field.name], field.default, shown)
            continue
        for method, kind in of_method[field.name].items():
            needed = any(map(required, dataclasses.fields(kind)))
            default = dataclasses.MISSING if needed else kind()
            parts += section(field.name, kind, default, shown, method=method)
    return "\n\n".join(parts) + "\n"


def section(
    name: str, kind: type, default: Any, shown: dict[type, str], *, method: str | None = None
) -> Iterator[str]:
    """A section, then the tables in it.

    Args:
        name: of the section, with dots.
        kind: its dataclass.
        default: what stands for a section that is left out; MISSING where it must not be.
        shown: dataclass -> name of the section that has explained its keys; is added to.
        method: the method that has this section.
    """
    yield f"## [{name}]" + ("" if method is None else f", method {method}")
    summary = first_line(inspect.getdoc(kind)).removeprefix(f"[{name}]").lstrip(":. ")
    if summary:
        yield summary[0].upper() + summary[1:]
    if default is not dataclasses.MISSING:
        yield "May be left out."
    known = next((base for base in kind.__mro__ if base in shown), None)
    if known is not None:
        yield f"The keys of [{shown[known]}]{'.' if known is kind else ', but for:'}"
    texts, hints = attribute_texts(kind), typing.get_type_hints(kind, include_extras=True)
    rows, tables = [], []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if known is not None and (kind is known or field.name not in kind.__annotations__):
            continue
        allowed = values(hint)
        if dataclasses.is_dataclass(nested := unpacked(hint)[0]):
            tables.append((f"{name}.{field.name}", nested))
            allowed += ", see below"
        start = "required" if required(field) else code(toml(field.default))
        rows.append((code(field.name), start, allowed, texts.get(field.name, "")))
    if rows:
        yield table(("key", "default", "value", "meaning"), rows)
    shown.setdefault(kind, name)
    for inner, nested in tables:
        yield from section(inner, nested, dataclasses.MISSING, shown)


def required(field: dataclasses.Field[Any]) -> bool:
    """Whether a key has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


def attribute_texts(kind: type) -> dict[str, str]:
    """Attribute -> its text in the docstrings of a dataclass and of those it extends."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        document = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        attributes = textwrap.dedent(document.partition("\nAttributes:\n")[2].split("\n\n")[0])
        for name, text in re.findall(r"^(\w+): (.+(?:\n\s+.+)*)", attributes, re.MULTILINE):
            texts[name] = re.sub(r"(?<!-)\s*\n\s+", " ", re.sub(r"-\n\s+", "-", text))
    return texts


def code(text: str) -> str:
    """Text in the typeface of code."""
    return f"`{text}`" if text else ""


def first_line(text: str | None) -> str:
    """The summary of a docstring."""
    return (text or "").partition("\n")[0]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
