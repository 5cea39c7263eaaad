"""The families of models that can be imported."""

from collections.abc import Callable, Mapping

from attendant_export.importers.albert import read_albert
from attendant_export.importers.bart import read_bart
from attendant_export.importers.bert import read_bert
from attendant_export.importers.bge_m3 import is_bge_m3, with_bge_m3_vectors
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.cross_encoder import with_cross_encoder_defaults
from attendant_export.importers.ctranslate2_folder import is_ctranslate2, read_ctranslate2
from attendant_export.importers.distilbert import read_distilbert
from attendant_export.importers.electra import read_electra
from attendant_export.importers.gemma3 import read_gemma3
from attendant_export.importers.gguf import is_gguf, read_gguf
from attendant_export.importers.gpt2 import read_gpt2
from attendant_export.importers.imported import ImportedEncoder, ImportedTranslator
from attendant_export.importers.language_model import ImportedLanguageModel
from attendant_export.importers.late_interaction import is_late_interaction, with_token_vectors
from attendant_export.importers.llama import read_llama, read_mistral, read_qwen2
from attendant_export.importers.m2m_100 import read_m2m_100
from attendant_export.importers.marian import read_marian
from attendant_export.importers.marian_folder import read_marian_folder
from attendant_export.importers.marian_options import is_marian
from attendant_export.importers.mbart import read_mbart
from attendant_export.importers.modernbert import read_modernbert
from attendant_export.importers.mpnet import read_mpnet
from attendant_export.importers.opennmt_py import is_opennmt_py, read_opennmt_py
from attendant_export.importers.other_forms import check_form
from attendant_export.importers.qwen3 import read_qwen3
from attendant_export.importers.roberta import read_roberta
from attendant_export.importers.sentence_transformers import is_sentence_transformer, with_defaults
from attendant_export.importers.sparse_encoder import (
    is_splade,
    warn_of_splade,
    with_sparse_vectors,
)
from attendant_export.importers.static_embedding import is_static, read_static
from attendant_export.importers.t5 import read_t5
from attendant_export.importers.t5_encoder import is_t5_encoder, read_t5_encoder
from attendant_export.importers.task_heads import leave_out_task_head
from attendant_export.importers.word_vectors import WordVectorFile, read_word_vectors

Imported = ImportedEncoder | ImportedTranslator | ImportedLanguageModel

FAMILIES: Mapping[str, Callable[[Checkpoint], Imported]] = {
    "albert": read_albert,
    "bart": read_bart,
    "bert": read_bert,
    "camembert": read_roberta,
    "distilbert": read_distilbert,
    "electra": read_electra,
    "gemma3_text": read_gemma3,
    "gpt2": read_gpt2,
    "llama": read_llama,
    "m2m_100": read_m2m_100,
    "marian": read_marian,
    "mbart": read_mbart,
    "mistral": read_mistral,
    "model2vec": read_static,
    "modernbert": read_modernbert,
    "mpnet": read_mpnet,
    "mt5": read_t5,
    "qwen2": read_qwen2,
    "qwen3": read_qwen3,
    "roberta": read_roberta,
    "t5": read_t5,
    "xlm-roberta": read_roberta,
}
"""The importer of each ``model_type`` of a configuration."""
ENCODERS = (
    read_albert,
    read_bert,
    read_distilbert,
    read_electra,
    read_gemma3,
    read_modernbert,
    read_mpnet,
    read_qwen3,
    read_roberta,
    read_t5_encoder,
)


def read_model(
    checkpoint: Checkpoint,
    tokenizer: str | None = None,
    without_head: bool = False,
    max_words: int | None = None,
) -> Imported:
    """The model of a checkpoint. Raises CheckpointError for another family, naming those known.

    ``tokenizer`` chooses that of a model of CTranslate2 or OpenNMT-py; ``without_head`` imports the
    embedding part of a model for a task; ``max_words`` imports the first word vectors of a file.
    Raises ValueError if one of them is given for another checkpoint.
    """
    is_words = isinstance(checkpoint, WordVectorFile)
    if max_words is not None and not is_words:
        raise ValueError("--max-words is for files of word vectors")
    if is_gguf(checkpoint):
        _refuse_options(tokenizer, without_head)
        return read_gguf(checkpoint)
    is_opennmt = not is_words and is_opennmt_py(checkpoint)
    is_converted = not is_opennmt and is_ctranslate2(checkpoint)
    is_own_format = is_words or is_converted or is_opennmt or is_marian(checkpoint)
    if without_head and (is_own_format or _importer(checkpoint) not in ENCODERS):
        raise ValueError("--without-head is for embedding models")
    if is_converted:
        return read_ctranslate2(checkpoint, tokenizer)
    if is_opennmt:
        return read_opennmt_py(checkpoint, tokenizer)
    _refuse_options(tokenizer)
    if isinstance(checkpoint, WordVectorFile):
        return read_word_vectors(checkpoint, max_words)
    if is_own_format:
        return read_marian_folder(checkpoint)
    read = _importer(checkpoint)
    if read in ENCODERS:
        leave_out_task_head(checkpoint, without_head)
    imported = read(checkpoint)
    if read is read_static or not isinstance(imported, ImportedEncoder):
        return imported
    if is_late_interaction(checkpoint):
        return with_token_vectors(imported, checkpoint)
    if is_splade(checkpoint):
        return with_sparse_vectors(imported, checkpoint)
    if not is_sentence_transformer(checkpoint):
        warn_of_splade(checkpoint)
        return imported
    if imported.classification is not None:
        return with_cross_encoder_defaults(imported, checkpoint)
    imported = with_defaults(imported, checkpoint)
    return with_bge_m3_vectors(imported, checkpoint) if is_bge_m3(checkpoint) else imported


def _refuse_options(tokenizer: str | None, without_head: bool = False) -> None:
    if tokenizer is not None:
        raise ValueError(
            "--tokenizer is for models of CTranslate2 and OpenNMT-py, which have no tokenizer of "
            "text"
        )
    if without_head:
        raise ValueError("--without-head is for embedding models")


def _importer(checkpoint: Checkpoint) -> Callable[[Checkpoint], Imported]:
    if is_static(checkpoint):
        return read_static
    check_form(checkpoint)
    if "model_type" not in checkpoint.config:
        raise CheckpointError(
            f"{checkpoint.config.path} has no model_type, which names the family of a model; "
            f"supported: {', '.join(FAMILIES)}"
        )
    read: Callable[[Checkpoint], Imported] = checkpoint.config.choice("model_type", FAMILIES)
    return read_t5_encoder if read is read_t5 and is_t5_encoder(checkpoint) else read
