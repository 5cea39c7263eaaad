"""Writes the API reference in Markdown from the comments of the contract.

    python -m protos.write_reference DESCRIPTORS > docs/api.md

DESCRIPTORS is a FileDescriptorSet with source information. The section of calls is gallery.md,
which is kept beside this module. `make protos` runs this; the result is committed, and `make check`
compares it with its source. Only messages and enums that a method uses
are described, each once, under the first method that needs it; those of manifests come last.

A sentence of a field's comment that begins with "Default" goes into the column of defaults, and one
that states what is refused into the column of limits.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PACKAGE = "attendant.v1"
HEAD = f"""\
<!-- Generated from protos/attendant/v1 by `make protos`. Do not edit it. -->

# API reference

The contract is the package `{PACKAGE}`, in [protos/attendant/v1](../protos/attendant/v1). \
[Calls](#calls) shows some of them in several languages; [other-languages.md](other-languages.md) \
has the set-up of each language, and says what every client should set. An `optional` field can be \
absent; any other field that is not sent has the zero of its type.
"""
GALLERY = Path(__file__).with_name("gallery.md")
BUNDLE_HEAD = "## Messages about bundles"
BUNDLE_FILES = ("attendant/v1/architecture.proto", "attendant/v1/bundle.proto")
SERVICES = (
    "TranslationService",
    "EmbeddingService",
    "LanguageModelService",
    "LanguageService",
    "ModelService",
    "ModelControlService",
)
EXTERNAL = {
    ".google.rpc.Status": "https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto",
    ".google.protobuf.Duration": "https://protobuf.dev/reference/protobuf/google.protobuf/#duration",
}
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"])")
DEFAULT = re.compile(r"Default:? |Absent: ")
LIMIT = re.compile(
    r"INVALID_ARGUMENT|FAILED_PRECONDITION|NOT_FOUND|Upper limit|Limits: |Required"
    r"|At least|At most|Must be|fails alone|\b[Oo]nly for|\bonly\.$"
)
CONSTANT = re.compile(
    r"\b(?:(?:[A-Z]+_)+[A-Z0-9]+|UNAVAILABLE|UNAUTHENTICATED|CANCELLED|INTERNAL)\b"
)


class Contract:
    """The services, messages and enums of a descriptor set, and their comments."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self.comments: dict[str, str] = {}
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.methods: dict[str, list[MethodDescriptorProto]] = {}
        self.about_bundles = set[str]()
        for file in files:
            if file.package == PACKAGE:
                self._read(file)
        roots = [messages_of(method) for methods in self.methods.values() for method in methods]
        self.described = {name for both in roots for root in both for name in self.used(root)}

    def _read(self, file: FileDescriptorProto) -> None:
        names = dict(_names(file))
        if file.name in BUNDLE_FILES:
            self.about_bundles |= set(names.values())
        for location in file.source_code_info.location:
            if name := names.get(tuple(location.path)):
                self.comments[name] = location.leading_comments
        self.messages |= {message.name: message for message in file.message_type}
        self.enums |= {enum.name: enum for enum in file.enum_type}
        self.methods |= {service.name: list(service.method) for service in file.service}

    def paragraphs(self, name: str) -> list[str]:
        """The comment of a thing as Markdown, each paragraph on one line."""
        parts = re.split(r"\n\s*\n", self.comments.get(name, ""))
        return [self._markdown(" ".join(part.split())) for part in parts if part.strip()]

    def used(self, message: str) -> Iterator[str]:
        """The message, and all messages and enums that its fields need, in order of appearance."""
        yield message
        for field in self.messages[message].field:
            name = field.type_name.removeprefix(f".{PACKAGE}.")
            if name in self.messages:
                yield from self.used(name)
            elif name in self.enums:
                yield name

    def _markdown(self, text: str) -> str:
        """A text with code and links for the names of the contract, safe in a table."""
        text = text.replace("<", "&lt;").replace("|", "\\|")
        text = CONSTANT.sub(r"`\g<0>`", text)
        return re.sub(r"\b([A-Z]\w+)\.(\w+)", self._link, text)

    def _link(self, found: re.Match[str]) -> str:
        has_section = found[1] in self.described
        return f"[`{found[0]}`](#{found[1].lower()})" if has_section else found[0]


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """The paths of source information and the names of what they point to."""
    for i, message in enumerate(file.message_type):
        yield (4, i), message.name
        yield from (((4, i, 2, k), f"{message.name}.{f.name}") for k, f in enumerate(message.field))
    for i, enum in enumerate(file.enum_type):
        yield (5, i), enum.name
        yield from (((5, i, 2, k), f"{enum.name}.{v.name}") for k, v in enumerate(enum.value))
    for i, service in enumerate(file.service):
        yield (6, i), service.name
        for k, method in enumerate(service.method):
            yield (6, i, 2, k), f"{service.name}.{method.name}"


def type_of(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The type of a field of a message as the contract writes it, with a link to what it names."""
    for entry in message.nested_type:
        if field.type_name.endswith(f".{message.name}.{entry.name}"):
            return f"map&lt;{', '.join(type_of(part, entry) for part in entry.field)}>"
    if field.type_name:
        name = field.type_name.removeprefix(f".{PACKAGE}.").lstrip(".")
        shown = f"[{name}]({EXTERNAL.get(field.type_name, f'#{name.lower()}')})"
    else:
        shown = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {shown}"
    if field.proto3_optional:
        return f"optional {shown}"
    choice = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    return f"{shown}, one of {choice}" if choice else shown


def split_comment(text: str) -> tuple[str, str, str]:
    """The sentences of a field's comment: meaning, default and limits."""
    columns: dict[str, list[str]] = {"meaning": [], "default": [], "limits": []}
    for number, sentence in enumerate(SENTENCE_END.split(text)):
        if DEFAULT.match(sentence):
            value = DEFAULT.sub("", sentence, count=1)
            is_word = re.fullmatch(r"\w+\.", value)
            columns["default"].append(value[:-1] if is_word else _capitalized(value))
        else:
            columns["limits" if number and LIMIT.search(sentence) else "meaning"].append(sentence)
    meaning, default, limits = (" ".join(column) for column in columns.values())
    return meaning, default, limits


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def message_section(contract: Contract, name: str, *, is_request: bool) -> Iterator[str]:
    """The heading, comment and fields of a message."""
    yield f"#### {name}"
    yield from contract.paragraphs(name)
    message = contract.messages[name]
    if not message.field:
        yield "No fields."
        return
    headers = ["field", "type", "meaning", *(("default", "limits") if is_request else ())]
    rows = []
    for field in message.field:
        text = " ".join(contract.paragraphs(f"{name}.{field.name}"))
        columns = split_comment(text) if is_request else (text,)
        rows.append([f"`{field.name}`", type_of(field, message), *columns])
    yield table(headers, rows)


def enum_section(contract: Contract, name: str) -> Iterator[str]:
    """The heading, comment and values of an enum."""
    yield f"#### {name}"
    yield from contract.paragraphs(name)
    rows = [
        [f"`{v.name}`", str(v.number), " ".join(contract.paragraphs(f"{name}.{v.name}"))]
        for v in contract.enums[name].value
    ]
    yield table(["value", "number", "meaning"], rows)


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(re.sub(r"(?<=\|)  (?=\|)", " ", f"| {' | '.join(line)} |") for line in lines)


def method_section(
    contract: Contract, service: str, method: MethodDescriptorProto, described: set[str]
) -> Iterator[str]:
    """The heading and comment of a method, and the messages that no earlier method has."""
    request, response = messages_of(method)
    takes = "stream " if method.client_streaming else ""
    returns = "stream " if method.server_streaming else ""
    yield f"### {method.name}"
    yield (
        f"`{PACKAGE}.{service}/{method.name}` takes {takes}[{request}](#{request.lower()}) and "
        f"returns {returns}[{response}](#{response.lower()})."
    )
    yield from contract.paragraphs(f"{service}.{method.name}")
    if f"\n### Calls of {method.name}\n" in GALLERY.read_text(encoding="utf-8"):
        yield f"[Calls in several languages](#calls-of-{method.name.lower()})"
    for root in (request, response):
        names = [name for name in contract.used(root) if name not in contract.about_bundles]
        yield from sections(contract, names, described, is_request=root == request)


def sections(
    contract: Contract, names: Iterable[str], described: set[str], *, is_request: bool = False
) -> Iterator[str]:
    """The sections of the messages and enums that are not described yet."""
    for name in names:
        if name not in described:
            described.add(name)
            if name in contract.enums:
                yield from enum_section(contract, name)
            else:
                yield from message_section(contract, name, is_request=is_request)


def messages_of(method: MethodDescriptorProto) -> tuple[str, str]:
    """The names of the request and the response of a method."""
    request, response = (t.rpartition(".")[2] for t in (method.input_type, method.output_type))
    return request, response


def reference(contract: Contract) -> str:
    """The whole page."""
    methods = [(service, method) for service in SERVICES for method in contract.methods[service]]
    rows = [
        [service, f"[{method.name}](#{method.name.lower()})", _summary(contract, service, method)]
        for service, method in methods
    ]
    parts = [HEAD.rstrip(), table(["service", "method", "in short"], rows)]
    described = set[str]()
    for service in SERVICES:
        parts += [f"## {service}", *contract.paragraphs(service)]
        for method in contract.methods[service]:
            parts += method_section(contract, service, method, described)
    used = [name for _, m in methods for root in messages_of(m) for name in contract.used(root)]
    about_bundles = [name for name in used if name in contract.about_bundles]
    parts.append(GALLERY.read_text(encoding="utf-8").rstrip())
    parts += [BUNDLE_HEAD, *sections(contract, about_bundles, described)]
    return "\n\n".join(parts) + "\n"


def _summary(contract: Contract, service: str, method: MethodDescriptorProto) -> str:
    """The first sentence of a method's comment, without the name of the method."""
    first = contract.paragraphs(f"{service}.{method.name}")[0]
    return _capitalized(SENTENCE_END.split(first)[0].removeprefix(f"{method.name} "))


if __name__ == "__main__":
    descriptors = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    sys.stdout.write(reference(Contract(descriptors.file)))
