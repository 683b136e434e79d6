"""Controls made of the package's own dataclasses: a field becomes a component, a changed value becomes a flag.

Names and help come from the very fields that the command line shows; Chinese ones from ``fields_zh.json``.
"""

import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources

import gradio as gr
from gradio.components import Component
from typing_extensions import Doc

from fslab.webapp.words import Language, word

FIELDS_ZH: dict[str, list[str]] = json.loads(
    resources.files("fslab.webapp").joinpath("fields_zh.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Control:
    """One field of a dataclass: ``kind`` its type, ``choices`` of a Literal, ``help`` its sentence in English."""

    name: str
    kind: type
    default: object
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"


def read_controls(config: object, names: Sequence[str]) -> list[Control]:
    """Return the named fields of a dataclass instance, with its values as defaults.

    Raises:
        ValueError: for a name that is none of its fields, or a field of a type that has no component.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    known = {f.name for f in fields(config)}
    if missing := [n for n in names if n not in known]:
        raise ValueError(f"fields of {type(config).__name__} wanted, got {missing}")
    return [_read(name, hints[name], getattr(config, name)) for name in names]


def _read(name: str, hint: object, default: object) -> Control:
    kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    about = next((e.documentation for e in extras if isinstance(e, Doc)), "")
    if typing.get_origin(kind) is typing.Literal:
        return Control(name, str, default, typing.get_args(kind), about)
    if kind not in (bool, int, float, str):
        raise ValueError(f"{name}: a bool, a number, a text or a choice wanted, got {kind}")
    return Control(name, kind, default, (), about)


def build_controls(controls: Sequence[Control]) -> list[Component]:
    """Make a component of each, inside whatever layout is open."""
    return [_component(c) for c in controls]


def _component(control: Control) -> Component:
    told = {"label": word(f"field_{control.name}"), "info": word(f"help_{control.name}"), "value": control.default}
    if control.choices:
        return gr.Dropdown(list(control.choices), **told)
    if control.kind is bool:
        return gr.Checkbox(**told)
    if control.kind is str:
        return gr.Textbox(**told)
    if control.kind is float and 0 <= float(control.default) <= 1 and "0 to 1" in control.help:
        return gr.Slider(0, 1, step=0.01, **told)
    return gr.Number(precision=0 if control.kind is int else None, **told)


def changed_values(controls: Sequence[Control], values: Sequence[object]) -> dict[str, object]:
    """Return what differs from the defaults, as the fields' types; an emptied control counts as its default."""
    pairs = ((c, c.default if v is None or v == "" else c.kind(v)) for c, v in zip(controls, values, strict=True))
    return {c.name: v for c, v in pairs if v != c.default}


def flags(controls: Sequence[Control], values: Sequence[object]) -> list[str]:
    """Return the options that say on a command line what differs from the defaults."""
    by_name, found = {c.name: c for c in controls}, []
    for name, value in changed_values(controls, values).items():
        flag = by_name[name].flag
        found += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    return found


def field_words(controls: Sequence[Control], language: Language) -> dict[str, str]:
    """Return the names and help sentences of these fields, by the keys that their components use."""
    found = {}
    for control in controls:
        spoken = (control.name.replace("_", " "), control.help) if language == "en" else FIELDS_ZH[control.name]
        found |= {f"field_{control.name}": spoken[0], f"help_{control.name}": spoken[1]}
    return found
