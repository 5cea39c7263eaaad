"""Options of CTranslate2 models: scalars of ``model.bin`` and fields of ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError, Config
from attendant_export.importers.ctranslate2_file import ModelFile, Scalar

CONFIG_VERSION = 6
"""The version of the format from which on these options are in ``config.json``."""
HEADS_OF_SPECIFICATIONS = {"": 8, "TransformerBase": 8, "TransformerBig": 16}
"""Numbers of heads of early specifications, which do not state them."""
WHOLE_MODEL = ("num_heads", "pre_norm", "activation", "alignment_layer", "alignment_heads")
"""Options that early revisions state once for both stacks."""


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Special tokens, and which of them are added to texts."""

    unk: str
    bos: str
    eos: str
    start: str | None
    """The first input of the decoder. None: the caller must give it."""
    adds_bos: bool
    """Whether a source begins with BOS."""
    adds_eos: bool
    """Whether a source ends with EOS."""


class ModelOptions:
    """The scalars of a model file, each read or stated as what it must be."""

    def __init__(self, file: ModelFile) -> None:
        self.file, self._values = file, file.scalars()
        if file.revision < 3 and file.specification in HEADS_OF_SPECIFICATIONS:
            self._values.setdefault("num_heads", HEADS_OF_SPECIFICATIONS[file.specification])
        if file.revision < 5:
            shared = {name: self._values.pop(name, None) for name in WHOLE_MODEL}
            for name, value in shared.items():
                if value is not None:
                    self._values |= {f"encoder/{name}": value, f"decoder/{name}": value}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: Scalar) -> Scalar:
        """The value of an option."""
        self._read.add(name)
        return self._values.get(name, default)

    def choice(self, name: str, choices: Mapping[Scalar, Any], default: Scalar) -> Any:
        """What the value of an option means; raises CheckpointError that lists known values."""
        value = self.get(name, default)
        if value not in choices:
            known = ", ".join(map(str, choices))
            raise CheckpointError(
                f"{self.file.path}: {name} is {value}, which is not supported; supported: {known}"
            )
        return choices[value]

    def flag(self, name: str, default: bool) -> bool:
        """An option that is 0 or 1."""
        value: bool = self.choice(name, {0: False, 1: True}, default)
        return value

    def integer(self, name: str, default: int) -> int:
        """An option that is a positive integer."""
        value = self.get(name, default)
        if value != int(value) or value < 1:
            raise CheckpointError(f"{self.file.path}: {name} is {value}, want a positive integer")
        return int(value)

    def require(self, *names: str, value: Scalar) -> None:
        """Raise CheckpointError unless these options, if they are given, have this value."""
        for name in names:
            self.choice(name, {value: value}, value)

    def ignore(self, *names: str) -> None:
        """Options that change no outputs."""
        self._read.update(names)

    def check_all_read(self) -> None:
        """Raise CheckpointError that names the options that nothing has read."""
        unread = sorted(self._values.keys() - self._read)
        if unread:
            listed = ", ".join(f"{name} {self._values[name]}" for name in unread)
            raise CheckpointError(f"{self.file.path}: options that are not supported: {listed}")


def read_token_options(checkpoint: Checkpoint, options: ModelOptions) -> TokenOptions:
    """The options on tokens, of the model file or, from version 6 on, of ``config.json``."""
    early = options.file.version < CONFIG_VERSION
    config = _early_config(checkpoint, options) if early else checkpoint.config
    if config.get("quantization_type", 0) != 0:
        raise CheckpointError(
            f"{config.path}: quantization_type is {config.get('quantization_type')!r}, which is "
            "not supported; supported: 0"
        )
    return TokenOptions(
        unk=_token(config, "unk_token", "<unk>"),
        bos=_token(config, "bos_token", "<s>"),
        eos=_token(config, "eos_token", "</s>"),
        start=_token(config, "decoder_start_token") if "decoder_start_token" in config else None,
        adds_bos=config.flag("add_source_bos", default=False),
        adds_eos=config.flag("add_source_eos", default=False),
    )


def layer_norm_epsilon(checkpoint: Checkpoint) -> float:
    """The epsilon of all layer norms."""
    return checkpoint.config.number("layer_norm_epsilon", 1e-5) if checkpoint.has(CONFIG) else 1e-5


def _token(config: Config, name: str, default: str | None = None) -> str:
    token = config.get(name, default)
    if not isinstance(token, str) or not token:
        raise CheckpointError(f"{config.path}: {name} is {token!r}, want a token")
    return token


def _early_config(checkpoint: Checkpoint, options: ModelOptions) -> Config:
    """The fields of ``config.json`` that earlier versions have in the model file."""
    file = options.file
    fields: dict[str, Any] = {
        name: file.text(name)
        for name in ("unk_token", "bos_token", "eos_token")
        if name in file.shapes()
    }
    for name in ("bos", "eos"):
        fields[f"add_source_{name}"] = options.flag(f"with_source_{name}", False)
    starts_with_bos = options.flag("with_target_bos", True)
    if not options.flag("user_decoder_start_tokens", False):
        default = {"bos": "<s>", "eos": "</s>"}
        side = "bos" if starts_with_bos else "eos"
        fields["decoder_start_token"] = fields.get(f"{side}_token", default[side])
    if checkpoint.has(CONFIG) and "quantization_type" in checkpoint.config:
        fields["quantization_type"] = checkpoint.config.get("quantization_type")
    return Config(file.path, fields)
