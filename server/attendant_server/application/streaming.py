"""Streams of one text: words of its pieces as soon as they are settled, in order."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import chain
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.finishing import PieceFinisher
from attendant_server.application.hypotheses import NO_TRANSLATION, Attention
from attendant_server.application.jobs import JobRunner
from attendant_server.application.piece_searches import align_pieces, work_of_places
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.settled_prefix import SettledPrefix
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.engine.calls import Hypothesis, TranslateCall, joined_timings
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.errors import InvalidRequest

MAX_RUNNING_PIECES = 4
"""Pieces of one stream that are translated at the same time."""


class TextStream:
    """The translation of one text while it is decoded."""

    def __init__(
        self,
        plan: TranslationPlan,
        text: PiecedText,
        deadline: float,
        jobs: JobRunner,
        seeds: Sequence[str] = (),
        finisher: PieceFinisher | None = None,
    ) -> None:
        """``deadline`` is on the engine's clock.

        ``seeds`` are those of the samples of all pieces. The first sample of each is streamed.
        """
        self._plan, self._text, self._jobs, self._finisher = plan, text, jobs, finisher
        self._deadline, self._seeds, options = deadline, seeds, plan.options
        self._prefixes = [SettledPrefix() for _ in text.pieces]
        num_samples = options.num_hypotheses if seeds else 1
        prefixes = [text.prefix.token_ids] * num_samples if text.prefix is not None else ()
        self._calls = [
            TranslateCall(
                [token_ids] * num_samples,
                options,
                deadline,
                prefix.put,
                seeds[number * num_samples : (number + 1) * num_samples],
                prefixes,
            )
            for number, (token_ids, prefix) in enumerate(
                zip(text.token_ids, self._prefixes, strict=True)
            )
        ]
        self._tasks: list[asyncio.Task[_Found]] = []
        self.results: Sequence[list[Hypothesis]] = ()
        """The hypotheses of all pieces, at the end."""
        self.attention: Attention = ()
        """The attention weights on which the texts of hypotheses depend, at the end."""

    async def deltas(self) -> AsyncGenerator[str, None]:
        """Text to append to that before; the end of the translation may be missing.

        Raises SearchTooLarge, or InvalidRequest for a piece without a translation.
        """
        last = ""
        try:
            for number in range(len(self._calls)):
                self._start(up_to=number + MAX_RUNNING_PIECES)
                num_sent = 0
                async with aclosing(self._growing(number)) as growing:
                    async for words in growing:
                        delta = self._text.before(number, last, words) + words
                        yield delta[num_sent:]
                        num_sent = len(delta)
                content = await self._content(number)
                if number + 1 < len(self._calls):
                    yield (self._text.before(number, last, content) + content)[num_sent:]
                last = content
            found = [task.result() for task in self._tasks]
            self.results = [each.hypotheses for each in found]
            self.attention = [each.attention for each in found]
        finally:
            for task in self._tasks:
                task.cancel()
            self._note_times()

    def _start(self, up_to: int) -> None:
        for number in range(len(self._tasks), min(up_to, len(self._calls))):
            self._tasks.append(asyncio.ensure_future(self._answer(number)))
            self._tasks[-1].add_done_callback(self._prefixes[number].close)

    async def _answer(self, number: int) -> "_Found":
        call = self._calls[number]
        found = await self._plan.model.answer(call, may_wait=number > 0)
        hypotheses = list(chain.from_iterable(found))
        if self._finisher is not None:
            seeds = self._seeds[number * len(found) : (number + 1) * len(found)]
            hypotheses = await self._finisher.of_piece(self._text, number, hypotheses, seeds)
        pieces, is_needed = [(self._text, number)], self._plan.joiner.writer.needs_attention
        [attention] = await align_pieces(
            self._plan, pieces, [hypotheses], self._deadline, is_needed
        )
        return _Found(hypotheses, attention)

    async def _growing(self, number: int) -> AsyncGenerator[str, None]:
        """The complete words of a piece's translation, whenever they become more.

        None for a piece with copies, whose places are known at the end only, and for a piece that
        may change after its search. None after an unknown token that is to be replaced.
        """
        num_characters, tokenizer = 0, self._plan.model.target_tokenizer
        is_settled = not self._text.pieces[number].copies
        if self._finisher is not None:
            is_settled &= not await self._finisher.may_change(self._text, number)
        while (token_ids := await self._prefixes[number].next()) is not None:
            if is_settled:
                words = self._text.words(tokenizer, self._plan.joiner.writer.settled(token_ids))
                if len(words) > num_characters:
                    yield words
                    num_characters = len(words)

    async def _content(self, number: int) -> str:
        """The whole translation of a piece."""
        found = await self._tasks[number]
        if not found.hypotheses:
            raise InvalidRequest("text", NO_TRANSLATION)
        best, weights = found.hypotheses[0], found.attention[0]
        writer = self._plan.joiner.writer
        written = await self._jobs.run_for(
            work_of_places([[weights]]),
            lambda: writer.written(self._text, number, best.token_ids, weights),
        )
        return written.content

    def _note_times(self) -> None:
        """Let the record have the start of the first piece and the end of the last one."""
        if self._calls:
            records.current().engine = joined_timings([call.timings for call in self._calls])


class _Found(NamedTuple):
    """The hypotheses of a piece, of all samples, and the attention weights that they need."""

    hypotheses: list[Hypothesis]
    attention: Sequence[AttentionWeights | None]
