"""Every word of the page in English and Chinese: labels that the browser picks, sentences that the server says.

Gradio puts labels into the browser's language by itself, but no messages and no numbers inside sentences: those are
said here, in the language that the request asks for (the switch's cookie first, then ``accept-language``).
"""

import json
import re
from importlib import resources
from typing import Literal

import gradio as gr

from fslab.errors import FslabError

Language = Literal["en", "zh"]
COOKIE = "fslab_language"
PREFIX = "fslab_"  # of the keys in the browser, where Gradio has words of its own
ZH_TAGS = ("zh", "zh-CN", "zh-TW", "zh-HK", "zh-MO", "zh-SG", "zh-Hans", "zh-Hant")
EN_TAGS = ("en", "en-US", "en-GB")
_HERE = resources.files("fslab.webapp")
_TABLE: dict[str, list[str]] = json.loads(_HERE.joinpath("words.json").read_text(encoding="utf-8"))
_PHRASES: list[list[str]] = json.loads(_HERE.joinpath("phrases_zh.json").read_text(encoding="utf-8"))
WORDS: dict[Language, dict[str, str]] = {
    "en": {key: pair[0] for key, pair in _TABLE.items()},
    "zh": {key: pair[1] for key, pair in _TABLE.items()},
}
_LABELS = gr.I18n()  # only makes the labels; the words themselves go to the browser by `page.build_i18n`


def word(key: str) -> object:
    """Return a label that the browser puts into its own language; KeyError for a word there is none of."""
    if key not in _TABLE and not key.startswith(("field_", "help_")):
        raise KeyError(key)
    return _LABELS(PREFIX + key)


def language_of(request: gr.Request | None) -> Language:
    """Return the language a request asks for: that of the switch, else the browser's first of ours, else English."""
    if request is None:
        return "en"
    chosen = (getattr(request, "cookies", None) or {}).get(COOKIE)
    if chosen in ("en", "zh"):
        return chosen
    for tag in str((request.headers or {}).get("accept-language", "")).lower().split(","):
        if tag.strip()[:2] in ("en", "zh"):
            return tag.strip()[:2]
    return "en"


def text(key: str, language: Language, **values: object) -> str:
    """Return a sentence with its values filled in."""
    return WORDS[language][key].format(**values)


def say(error: Exception, request: gr.Request | None = None) -> str:
    """Return an error as one sentence in the language of the request."""
    language = language_of(request)
    if not isinstance(error, FslabError):
        return text("bad_value", language, reason=phrase(str(error), language))
    if language == "en":
        return f"Expected {error.expected}, found {error.found}. {error.fix[:1].upper()}{error.fix[1:]}."
    parts = (phrase(part, language) for part in (error.expected, error.found, error.fix))
    return text("error_sentence", language, **dict(zip(("expected", "found", "fix"), parts, strict=True)))


def phrase(english: str, language: Language) -> str:
    """Return what the package says in English (part of an error, a metric, a remark) in the visitor's language.

    What is put into a phrase, such as the name of a consent's scope, is looked up too; what the table does not know
    stays as it is.
    """
    for pattern, chinese in _PHRASES if language == "zh" else ():
        found = re.fullmatch(pattern, english)
        if found:
            return chinese.format(*(phrase(part or "", language) for part in found.groups()))
    return english
