"""Reads the tokenizers of bundles, and checks that they suit the manifest."""

from collections.abc import Sequence

from attendant.v1 import bundle_pb2
from attendant_manifest.rules import MANIFEST_NAME
from attendant_manifest.special_tokens import target_tokens
from attendant_manifest.text_normalization import normalizes_texts

from attendant_server.bundles import Bundle, BundleError
from attendant_server.reasons import reason_of
from attendant_server.tokenizer import TextTokenizer, TokenizerError


def read_tokenizer(
    bundle: Bundle, path: str, mask_id: int | None = None, reads_special_tokens: bool = False
) -> TextTokenizer:
    """The tokenizer of a file of the bundle; raises BundleError.

    With ``mask_id``, this token is recognized in texts, and with ``reads_special_tokens`` all are.
    """
    try:
        definition = bundle.path_of(path).read_text(encoding="utf-8")
        return TextTokenizer(
            definition,
            mask_id,
            *_vocabulary(bundle.manifest, path),
            normalizes=normalizes_texts(bundle.manifest),
            reads_special_tokens=reads_special_tokens,
        )
    except (OSError, UnicodeDecodeError, TokenizerError) as error:
        raise BundleError(f"{bundle.directory / path}: {reason_of(error)}") from error


def check_special_tokens(bundle: Bundle, tokenizer: TextTokenizer) -> None:
    """Raise BundleError if a token that has a role in decoding is an ordinary token of texts.

    The model may have more tokens than the tokenizer.
    """
    manifest = bundle.manifest
    part = (
        "target_special_tokens" if manifest.HasField("target_special_tokens") else "special_tokens"
    )
    roles = {f"{part}.eos_id": target_tokens(manifest).eos_id}
    if manifest.decoding.HasField("start_token_id"):
        roles["decoding.start_token_id"] = manifest.decoding.start_token_id
    for field, token_id in roles.items():
        if tokenizer.is_plain(token_id):
            raise BundleError(
                f"{bundle.directory / MANIFEST_NAME}: {field} is {token_id}, which is no special "
                f"token of {manifest.target_tokenizer or manifest.source_tokenizer}"
            )


def check_room(bundle: Bundle, tokenizer: TextTokenizer) -> None:
    """Raise BundleError if the tokens around a text leave no room for one token of it."""
    manifest, defaults = bundle.manifest, bundle.manifest.embedding
    field, limit = "max_tokens", manifest.limits.max_tokens
    prompt = defaults.prompts.get(defaults.default_prompt, "")
    if manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION:
        field, limit = "max_source_tokens", manifest.limits.max_source_tokens
    is_pair = manifest.HasField("classification")
    if is_pair and (num_tokens := len(tokenizer.encode("", ""))) + 2 > limit:
        raise BundleError(
            f"{bundle.directory / MANIFEST_NAME}: limits.{field} is {limit}, but special tokens of "
            f"a pair take {num_tokens}: no room for two texts"
        )
    num_tokens = len(tokenizer.encode(prompt)) + _num_chosen_tokens(manifest)
    if num_tokens >= limit:
        raise BundleError(
            f"{bundle.directory / MANIFEST_NAME}: limits.{field} is {limit}, but special tokens, "
            f"the default prompt and tokens of languages and controls take {num_tokens}: no room "
            "for a text"
        )


def _vocabulary(manifest: bundle_pb2.Manifest, path: str) -> tuple[int, int | None]:
    """The number of tokens that the network has for a tokenizer, and the id of the unknown one."""
    architecture, special_tokens = manifest.architecture, manifest.special_tokens
    embeddings = architecture.source_embeddings
    if manifest.kind == bundle_pb2.MODEL_KIND_LANGUAGE_MODEL:
        embeddings = architecture.target_embeddings
    elif path != manifest.source_tokenizer:
        embeddings, special_tokens = architecture.target_embeddings, target_tokens(manifest)
    unk_id = special_tokens.unk_id if special_tokens.HasField("unk_id") else None
    return embeddings.vocab_size, unk_id


def _num_chosen_tokens(manifest: bundle_pb2.Manifest) -> int:
    """Largest number of tokens of languages and controls around a text."""
    groups: list[Sequence[bundle_pb2.Language | bundle_pb2.ControlValue]] = [
        manifest.source_languages,
        manifest.target_languages,
        *(control.values for control in manifest.controls),
    ]
    return sum(
        max(len(each.source_prefix_ids) + len(each.source_suffix_ids) for each in group)
        for group in groups
        if group
    )
