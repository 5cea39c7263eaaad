"""Streams of models whose tokenizers do not separate words by spaces."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attendant.v1.translation_pb2 import StreamTranslateRequest

from tests.support.altered import with_tokenizer
from tests.support.serving import Running

REQUEST = StreamTranslateRequest(text="The dog sees the king.")


@pytest.fixture
def start_with_decoder(
    start: Callable[..., Running], translation_bundle: Path, tmp_path: Path
) -> Callable[..., Running]:
    """Starts a server whose translation model has the given token decoder."""

    def start_it(*steps: dict[str, Any]) -> Running:
        def change(definition: dict[str, Any]) -> None:
            definition["decoder"] = {"type": "Sequence", "decoders": list(steps)}

        return start(bundles=with_tokenizer(translation_bundle, tmp_path, change))

    return start_it


def replaced(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.usefixtures("every_prefix")
def test_a_language_without_spaces_is_streamed_before_its_end(
    start_with_decoder: Callable[..., Running],
):
    running = start_with_decoder(replaced("▁", "、"))
    *pieces, last = running.translation.StreamTranslate(REQUEST)
    text = last.translation.hypotheses[0].text
    assert " " not in text
    assert len(pieces) > 1
    assert "".join(piece.delta for piece in [*pieces, last]) == text


def test_a_text_whose_beginning_may_still_change_is_sent_at_the_end(
    start_with_decoder: Callable[..., Running],
):
    running = start_with_decoder(
        replaced("▁", " "),
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": r"\S+ den"}, "content": "another text"},
    )
    [last] = running.translation.StreamTranslate(REQUEST)
    assert "another text" in last.delta
    assert last.delta == last.translation.hypotheses[0].text
