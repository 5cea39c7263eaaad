"""Controls of a translation model, such as formality: from options to the tokens of a manifest."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Control, ControlValue
from attendant_manifest.translation_rules import CONTROL_NAME
from tokenizers import Tokenizer

FORM = re.compile(r"(?P<name>[^:;]+):(?P<values>[^;]+)(?P<settings>(?:;[a-z]+=[^;]*)*)", re.DOTALL)
WANTED = "NAME:VALUE=TOKEN,...[;default=VALUE][;place=PLACE][;description=TEXT]"
"""The form of an option. A value may have several tokens, with spaces between them, or none."""
PLACES = {
    "source": "source_prefix_ids",
    "source-end": "source_suffix_ids",
    "target": "forced_target_ids",
}
"""The field of each place of tokens: before a source, after it, or at the beginning of a target."""
WORD_START = "\u2581"


@dataclass(frozen=True, slots=True)
class ControlOption:
    """A control as an option states it, with the texts of its tokens."""

    name: str
    values: Mapping[str, tuple[str, ...]]
    """The tokens of each value."""
    default_value: str = ""
    place: str = "source"
    description: str = ""


def read_control(text: str) -> ControlOption:
    """Read an option of the form `WANTED`; raises ValueError."""
    form = FORM.fullmatch(text)
    pairs = [pair.partition("=") for pair in form["values"].split(",")] if form else []
    values = {name: tuple(tokens.split()) for name, _, tokens in pairs}
    if form is None or not all(sign for _, sign, _ in pairs) or len(values) < len(pairs):
        raise ValueError(f"--control {text}: want {WANTED}, each value once")
    found = [setting.partition("=")[::2] for setting in form["settings"].split(";")[1:]]
    settings = dict(found)
    if len(settings) < len(found) or settings.keys() - {"default", "place", "description"}:
        raise ValueError(f"--control {text}: want {WANTED}, each setting once")
    place = settings.get("place", "source")
    if place not in PLACES:
        raise ValueError(f"--control {text}: place must be one of {', '.join(PLACES)}")
    default, description = settings.get("default", ""), settings.get("description", "")
    if not all(map(CONTROL_NAME.fullmatch, (form["name"], *values))):
        raise ValueError(f"--control {text}: a name does not match {CONTROL_NAME.pattern}")
    if default and default not in values:
        raise ValueError(f"--control {text}: the default is not among the values")
    return ControlOption(form["name"], values, default, place, description)


def control_messages(
    options: Iterable[ControlOption],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    architecture: Architecture,
) -> Iterator[Control]:
    """The controls of a manifest; raises ValueError for a token that the model lacks."""
    for option in options:
        tokenizer, embeddings = source_tokenizer, architecture.source_embeddings
        if option.place == "target":
            tokenizer, embeddings = target_tokenizer, architecture.target_embeddings
        control = Control(
            name=option.name,
            description=option.description,
            default_value=option.default_value,
        )
        for name, tokens in option.values.items():
            ids = _ids(option.name, tokenizer, tokens, embeddings.vocab_size)
            control.values.append(ControlValue(name=name, **{PLACES[option.place]: ids}))
        yield control


def describe_control(control: Control) -> str:
    """The name and the values of a control, with its default and its description."""
    values = ", ".join(value.name for value in control.values)
    default = f", default {control.default_value}" if control.default_value else ""
    return f"{control.name}: {values}{default}{control.description and f' ({control.description})'}"


def _ids(control: str, tokenizer: Tokenizer, tokens: Sequence[str], vocab_size: int) -> list[int]:
    """The ids of tokens as a text of them has them: with marks of the starts of words."""
    encoding = tokenizer.encode(" ".join(tokens), add_special_tokens=False)
    known = [
        token.removeprefix(WORD_START)
        for token, token_id in zip(encoding.tokens, encoding.ids, strict=True)
        if token != WORD_START and token_id < vocab_size
    ]
    if known == list(tokens):
        return list(encoding.ids)
    for token in tokens:
        token_id = tokenizer.token_to_id(token)
        if token_id is None or token_id >= vocab_size:
            raise ValueError(f"--control {control}: the vocabulary has no token {token}")
    found = " ".join(encoding.tokens)
    raise ValueError(f"--control {control}: the tokenizer splits {' '.join(tokens)} into {found}")
