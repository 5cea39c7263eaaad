"""Options of translation beside a Marian model: the file that names model and vocabularies."""

from dataclasses import dataclass

from attendant.v1.bundle_pb2 import DecodingDefaults

from attendant_export.importers.checkpoint import (
    CONFIG,
    Checkpoint,
    CheckpointError,
    Config,
    is_plain_name,
)
from attendant_export.importers.marian_file import MAGIC, parse_yaml
from attendant_export.importers.marian_shortlist import MAGIC as SHORTLIST_MAGIC

UNUSED = frozenset(
    (
        # of speed and memory
        *("relative-paths", "mini-batch", "mini-batch-words", "maxi-batch", "maxi-batch-sort"),
        *("workspace", "cpu-threads", "gemm-precision", "model-mmap", "skip-cost", "optimize"),
        # of logs
        *("quiet", "quiet-translation", "log-level", "stat-freq"),
        # limits of length and splitting into sentences, which the server or its caller decides
        *("max-length", "max-length-crop", "max-length-break", "max-length-factor", "ssplit-mode"),
        # what is returned beside translations
        *("alignment", "quality", "version"),
    )
)
"""Options that change no translation of a sentence within the limits."""
READ = frozenset(
    ("models", "vocabs", "shortlist", "beam-size", "normalize", "word-penalty", "allow-unk")
)


@dataclass(frozen=True, slots=True)
class MarianOptions:
    """The files of a model and the defaults of its search."""

    model: str
    vocabularies: tuple[str, str]
    """Of source and target; the same name for a joint one."""
    shortlist: str | None
    beam_size: int = 1
    length_penalty: float = 1.0
    allows_unknown: bool = False
    """Whether the unknown token may be generated."""

    def decoding(self, start_token_id: int, unknown_id: int) -> DecodingDefaults:
        """The decoding defaults of a bundle."""
        return DecodingDefaults(
            start_token_id=start_token_id,
            suppressed_token_ids=[] if self.allows_unknown else [unknown_id],
            beam_size=self.beam_size if self.beam_size > 1 else 0,
            length_penalty=None if self.length_penalty == 1 else self.length_penalty,
        )


def is_marian(checkpoint: Checkpoint) -> bool:
    """Whether a folder has a model of Marian's own formats."""
    return not checkpoint.has(CONFIG) and bool(_models(checkpoint))


def read_options(checkpoint: Checkpoint) -> MarianOptions:
    """The options of a folder's one file of options, else those that its files' names tell.

    Without such a file, search has the defaults of Firefox. Raises CheckpointError.
    """
    config = _options_file(checkpoint)
    if config is None:
        model = _only(checkpoint, "model", _models(checkpoint))
        return MarianOptions(model, _vocabularies(checkpoint), _shortlist(checkpoint))
    for name in config.names:
        if name not in UNUSED | READ and config.get(name):
            raise CheckpointError(
                f"{config.path}: {name} is {config.get(name)!r}, which is not supported"
            )
    config.choice("word-penalty", {0: 0}, default=0)
    models, vocabularies = (_files(config, name) for name in ("models", "vocabs"))
    if len(models) != 1 or len(vocabularies) != 2:
        raise CheckpointError(
            f"{config.path}: {len(models)} models with {len(vocabularies)} vocabs, want one with 2"
        )
    shortlist = config.get("shortlist") or []
    return MarianOptions(
        models[0],
        (vocabularies[0], vocabularies[1]),
        _files(config, "shortlist", 1)[0] if shortlist else None,
        config.integer("beam-size", default=12),
        _normalization(config),
        config.flag("allow-unk", default=False),
    )


def _options_file(checkpoint: Checkpoint) -> Config | None:
    found = []
    for name in _names(checkpoint, ".yml", ".yaml"):
        path = checkpoint.path(name)
        content = parse_yaml(str(path), path.read_text(encoding="utf-8", errors="replace"))
        if "models" in content:
            found.append(Config(path, content))
    if len(found) > 1:
        listed = ", ".join(config.path.name for config in found)
        raise CheckpointError(f"{checkpoint.folder} has several files of options: {listed}")
    return found[0] if found else None


def _files(config: Config, field: str, number: int | None = None) -> list[str]:
    """The first ``number`` entries of a field, names of files in the folder of ``config``."""
    names = config.get(field)
    if not isinstance(names, list) or not names or not all(map(is_plain_name, names[:number])):
        raise CheckpointError(
            f"{config.path}: {field} is {names!r}, want names of files in the same folder"
        )
    return names[:number]


def _normalization(config: Config) -> float:
    """The exponent of the length that divides sums of log-probabilities. Marian's default is 0."""
    value = config.get("normalize", 0)
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or value < 0:
        raise CheckpointError(f"{config.path}: normalize is {value!r}, want a number from 0 on")
    return float(value)


def _names(checkpoint: Checkpoint, *suffixes: str) -> list[str]:
    return [name for name in checkpoint.names() if name.endswith(suffixes)]


def _with_magic(checkpoint: Checkpoint, magic: bytes) -> list[str]:
    found = []
    for name in _names(checkpoint, ".bin"):
        path = checkpoint.find(name)
        if path is None:
            continue
        with path.open("rb") as content:
            if content.read(len(magic)) == magic:
                found.append(name)
    return found


def _models(checkpoint: Checkpoint) -> list[str]:
    return _with_magic(checkpoint, MAGIC) + _names(checkpoint, ".npz")


def _only(checkpoint: Checkpoint, kind: str, names: list[str]) -> str:
    if len(names) != 1:
        raise CheckpointError(
            f"{checkpoint.folder}: want one {kind}, found {', '.join(names) or 'none'}"
        )
    return names[0]


def _vocabularies(checkpoint: Checkpoint) -> tuple[str, str]:
    """The one vocabulary, or those whose names begin with ``src`` and ``trg``."""
    names = _names(checkpoint, ".spm")
    if len(names) == 2:
        source = [name for name in names if name.startswith(("src", "source"))]
        target = [name for name in names if name.startswith(("trg", "target"))]
        if len(source) == len(target) == 1:
            return source[0], target[0]
    name = _only(checkpoint, "vocabulary (.spm), or srcvocab and trgvocab", names)
    return name, name


def _shortlist(checkpoint: Checkpoint) -> str | None:
    names = _with_magic(checkpoint, SHORTLIST_MAGIC)
    return _only(checkpoint, "shortlist", names) if names else None
