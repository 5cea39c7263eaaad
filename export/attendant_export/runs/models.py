"""The best model of a run."""

from pathlib import Path

from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.models.bert import Bert, BertConfig
from attendant_export.models.transformer import Transformer, TransformerConfig
from attendant_export.runs import checkpoint


def load_translation_model(run_dir: Path) -> tuple[Transformer, Tokenizer]:
    """The best model of a run folder, in evaluation mode, and its tokenizer."""
    config = checkpoint.read_json(run_dir / checkpoint.CONFIG)
    config.pop("kind")
    model = Transformer(TransformerConfig(**config)).eval()
    checkpoint.load_weights(checkpoint.find_weights(run_dir), model)
    return model, load_tokenizer(run_dir / TOKENIZER)


def load_bert_model(run_dir: Path) -> tuple[Bert, Tokenizer]:
    """The best model of a run folder, in evaluation mode, and its tokenizer."""
    config = checkpoint.read_json(run_dir / checkpoint.CONFIG)
    config.pop("kind")
    model = Bert(BertConfig(**config)).eval()
    checkpoint.load_weights(checkpoint.find_weights(run_dir), model)
    return model, load_tokenizer(run_dir / TOKENIZER)
