"""Searches that make translations contain the terms of a glossary.

A translation that lacks a term is decoded again: it keeps the words before the place where, by the
attention of the model, the term belongs, then has the term, and the search goes on from there. So
the place is the model's choice, and the words after the term suit it. What is decoded again keeps
the earlier terms. A search adds several terms if there would otherwise be too many searches.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from math import inf

from attendant_server.application.engine_searches import MAX_RUNNING_SENTENCES, with_faults
from attendant_server.application.glossaries import Glossary, TermMatch
from attendant_server.application.glossary_drafts import Beginning, Draft, text_tokens
from attendant_server.application.glossary_places import (
    TermPlace,
    first_word,
    next_places,
    work_of_next_places,
)
from attendant_server.application.jobs import TOKENS_DECODED_FOR_ONE, JobRunner
from attendant_server.application.piece_searches import (
    numbered_pieces,
)
from attendant_server.application.piece_terms import work_of_matching
from attendant_server.application.pieced_text import PiecedText, numbers_of_pieces
from attendant_server.application.quotas import current_usage
from attendant_server.application.sampling import seeds_of
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.application.validation import TEXTS
from attendant_server.engine.calls import (
    Call,
    Hypothesis,
    Result,
    SearchOptions,
    SearchTooLarge,
    TokenIds,
    TranslateCall,
)
from attendant_server.engine.pair_calls import AlignCall, AttentionWeights, ScoreCall
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer

NUM_WORDS_BEFORE = 4
"""Words that are tried before a term, such as articles of other genders."""
MAX_WORD_TOKENS = 6
"""Tokens of such a word at most."""
MAX_WORD_SEARCHES = 4
"""Terms of one search for which such words are looked for: the last ones."""
MAX_DRAFTS = 64
"""Translations of one call that are decoded again at the same time."""


class GlossarySearch:
    """The searches of one call with a glossary."""

    def __init__(
        self,
        plan: TranslationPlan,
        glossary: Glossary,
        deadline: float,
        max_width: int,
        jobs: JobRunner,
    ) -> None:
        """``deadline`` is on the engine's clock. ``max_width`` limits the rows of a search."""
        self._plan, self._glossary, self._deadline = plan, glossary, deadline
        self._max_width, self._jobs = max_width, jobs
        self._tokenizer = plan.model.target_tokenizer

    async def has_terms(self, text: PiecedText, number: int) -> bool:
        """Whether a piece of a text has terms."""
        work = work_of_matching(text, number)
        return bool(await self._jobs.run_for(work, lambda: self._matches(text, number)))

    def _matches(self, text: PiecedText, number: int) -> list[TermMatch]:
        """The terms in a piece of a text, by their places in `Piece.text`."""
        return self._glossary.matches(text.pieces[number].text)

    async def of_texts(
        self,
        texts: Sequence[PiecedText | InvalidRequest],
        results: Sequence[list[Hypothesis]],
        places: Sequence[str],
    ) -> tuple[list[PiecedText | InvalidRequest], list[list[Hypothesis]]]:
        """The texts and the hypotheses of all their pieces, with all terms.

        ``places`` are those of the texts, for seeds. A text is its fault if terms of it cannot be
        added.
        """
        num_samples = self._plan.num_samples
        seeds = iter(seeds_of(self._plan.seed, places, numbers_of_pieces(texts), num_samples))
        pieces = numbered_pieces(texts)
        drafts = await self._jobs.run_all(
            (
                work_of_matching(text, number),
                partial(self._drafts, text, number, hypotheses, list(islice(seeds, num_samples))),
            )
            for (text, number), hypotheses in zip(pieces, results, strict=True)
        )
        await self._add_all_terms(drafts)
        problems = {i: d.problem for i, own in enumerate(drafts) for d in own if d.problem}
        answered = with_faults(texts, numbers_of_pieces(texts), problems, TEXTS)
        good_texts = set(map(id, answered))
        return answered, [
            self._ranked(own)
            for (text, _), own in zip(pieces, drafts, strict=True)
            if id(text) in good_texts
        ]

    async def of_piece(
        self,
        text: PiecedText,
        number: int,
        hypotheses: Sequence[Hypothesis],
        seeds: Sequence[str],
    ) -> list[Hypothesis]:
        """The hypotheses of one piece with all terms; raises InvalidRequest."""
        drafts = await self._jobs.run_for(
            work_of_matching(text, number),
            lambda: self._drafts(text, number, hypotheses, seeds),
        )
        await self._add_all_terms([drafts])
        for problem in filter(None, (draft.problem for draft in drafts)):
            raise InvalidRequest("text", problem)
        return self._ranked(drafts)

    def _drafts(
        self,
        text: PiecedText,
        number: int,
        hypotheses: Sequence[Hypothesis],
        seeds: Sequence[str],
    ) -> list[Draft]:
        matches = self._matches(text, number)
        own_seeds = seeds or [""] * len(hypotheses)
        return [
            Draft(text, number, matches, hypothesis, seed)
            for hypothesis, seed in zip(hypotheses, own_seeds, strict=False)
        ]

    async def _add_all_terms(self, drafts: Sequence[Sequence[Draft]]) -> None:
        """Decode the drafts of pieces again until they lack no terms."""
        open_drafts = [draft for own in drafts for draft in own if draft.matches]
        while open_drafts := await self._jobs.run_for(
            sum(len(draft.hypothesis.token_ids) for draft in open_drafts),
            partial(_lacking, open_drafts, self._tokenizer),
        ):
            for first in range(0, len(open_drafts), MAX_DRAFTS):
                await self._add_terms(open_drafts[first : first + MAX_DRAFTS])

    async def _add_terms(self, drafts: Sequence[Draft]) -> None:
        """Decode drafts again, each with at least one more term."""
        pairs = [(draft.source, draft.hypothesis.token_ids) for draft in drafts]
        call = AlignCall(pairs, self._deadline)
        weights = await self._answered(call, (source for source, _ in pairs))
        places = await self._jobs.run_for(
            sum(map(work_of_next_places, drafts)), lambda: self._places(drafts, weights)
        )
        await self._add_words(places)
        await self._choose_inner([own for own in places if len(own) > 1])
        found = [beginning for own in places for beginning in own[-1].beginnings]
        # Both groups have options of their own.
        for ends_word in (True, False):
            await self._decode([each for each in found if each.ends_word is ends_word], ends_word)

    def _places(
        self, drafts: Sequence[Draft], weights: Sequence[AttentionWeights]
    ) -> list[list[TermPlace]]:
        """The places of the next terms of each draft that can have more."""
        found = []
        for draft, own in zip(drafts, weights, strict=True):
            places = next_places(draft, own, self._tokenizer, self._plan.options)
            draft.is_ended, draft.num_searches = True, draft.num_searches + 1
            found.append(places)
        return list(filter(None, found))

    async def _add_words(self, places: Sequence[Sequence[TermPlace]]) -> None:
        """Add beginnings with other words before the terms, which may suit the terms better."""
        searched = [place for own in places for place in own[-MAX_WORD_SEARCHES:]]
        kept = [(place, place.before_last_word()) for place in searched]
        changeable = [(place, before) for place, before in kept if before is not None]
        if not changeable:
            return
        prefixes = await self._jobs.run_for(
            _tokens_of_beginnings(place for place, _ in changeable) // TOKENS_DECODED_FOR_ONE,
            lambda: [text_tokens(self._tokenizer, before) for _, before in changeable],
        )
        options = self._options_of_words(max(map(len, prefixes)))
        sources = [place.draft.source for place, _ in changeable]
        call = TranslateCall(sources, options, self._deadline, prefixes=prefixes)
        try:
            answers = await self._answered(call, call.sources)
        except SearchTooLarge:  # the words of the draft do as well
            return
        found = list(zip(changeable, answers, strict=True))
        await self._jobs.run_for(
            NUM_WORDS_BEFORE
            * _tokens_of_beginnings(chain.from_iterable(places))
            // TOKENS_DECODED_FOR_ONE,
            partial(_add_first_words, places, found, self._tokenizer),
        )

    async def _choose_inner(self, places: Sequence[Sequence[TermPlace]]) -> None:
        """Choose the likeliest beginnings up to all terms but the last one of each draft."""
        compared = [place for own in places for place in own[:-1] if len(place.beginnings) > 1]
        found = [each for place in compared for each in place.beginnings]
        forced = self._plan.options.forced_token_ids
        pairs = [(each.draft.source, (*forced, *each.token_ids)) for each in found]
        score_of = dict(zip(found, await self._log_probabilities(pairs), strict=True))
        await self._jobs.run_for(
            _tokens_of_beginnings(own[-1] for own in places) // TOKENS_DECODED_FOR_ONE,
            partial(_move_last, places, score_of, self._tokenizer, self._plan.options),
        )

    def _options_of_words(self, num_prefix_tokens: int) -> SearchOptions:
        """The options of a search for the likeliest words after prefixes of so many tokens."""
        options, num_words = self._plan.options, min(NUM_WORDS_BEFORE, self._max_width)
        most = len(options.forced_token_ids) + num_prefix_tokens + MAX_WORD_TOKENS
        return options._replace(
            beam_size=1,
            num_beam_groups=1,
            num_hypotheses=num_words,
            num_alternatives=num_words,
            sampling=None,
            prefix_bias=None,
            min_output_tokens=0,
            max_output_tokens=min(options.max_output_tokens, most),
            max_output_ratio=None,
        )

    async def _decode(self, found: Sequence[Beginning], ends_word: bool) -> None:
        """Replace the hypothesis of each draft by the best one with any of its beginnings."""
        if not found:
            return
        next_ids = self._tokenizer.word_continuations if ends_word else ()
        call = TranslateCall(
            [each.draft.source for each in found],
            self._plan.options._replace(
                num_hypotheses=1, prefix_bias=None, suppressed_next_ids=next_ids
            ),
            self._deadline,
            seeds=[each.draft.seed for each in found],
            prefixes=[each.token_ids for each in found],
        )
        try:
            answers = await self._answered(call, call.sources)
        except SearchTooLarge as error:
            for i, problem in error.problems.items():
                found[i].draft.problem = problem
            await self._decode([each for each in found if not each.draft.problem], ends_word)
            return
        results = [(each, own[0]) for each, own in zip(found, answers, strict=True) if own]
        best: dict[Draft, float] = {}
        for (each, hypothesis), score in zip(results, await self._scores(results), strict=True):
            if score > best.get(each.draft, -inf):
                draft = each.draft
                best[draft], draft.hypothesis = score, hypothesis
                draft.num_kept, draft.is_ended = each.num_characters, False

    async def _scores(self, results: Sequence[tuple[Beginning, Hypothesis]]) -> list[float]:
        """The log-probabilities by which the translations of a draft are compared.

        Unlike those of the search, they count the tokens of the beginnings. They are not divided by
        lengths: the likely tokens of a longer translation must not make up for an unlikely term.
        """
        if len({each.draft for each, _ in results}) == len(results):
            return [0.0] * len(results)  # nothing to compare
        return await self._log_probabilities(
            [(each.draft.source, hypothesis.token_ids) for each, hypothesis in results]
        )

    async def _log_probabilities(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[float]:
        """The log-probability of each target of pairs."""
        found: list[float] = []
        for first in range(0, len(pairs), MAX_RUNNING_SENTENCES):
            call = ScoreCall(pairs[first : first + MAX_RUNNING_SENTENCES], self._deadline)
            scores = await self._answered(call, (source for source, _ in call.pairs))
            found += [float(score.log_probabilities.sum()) for score in scores]
        return found

    async def _answered(self, call: Call[Result], sources: Iterable[TokenIds]) -> list[Result]:
        """The results of a further call, whose sources count for the quotas of the caller again."""
        current_usage().charge_tokens(sum(map(len, sources)))
        return await self._plan.model.answer_further(call)

    def _ranked(self, drafts: Sequence[Draft]) -> list[Hypothesis]:
        found = [draft.hypothesis for draft in drafts]
        if self._plan.seed is not None or len(found) == 1:
            return found
        different = {each.token_ids: each for each in reversed(found)}
        return sorted(different.values(), key=lambda each: -each.score)


def _add_first_words(
    places: Sequence[Sequence[TermPlace]],
    found: Sequence[tuple[tuple[TermPlace, str], Sequence[Hypothesis]]],
    tokenizer: TextTokenizer,
) -> None:
    """Add beginnings with the words that hypotheses have in place of those before terms.

    ``found`` are places and the words that their hypotheses continue. Other places of the draft try
    the words that were found for these, which are mostly articles.
    """
    words_of = {
        place: [
            word
            for each in hypotheses
            if (word := first_word(tokenizer.decode(each.token_ids), before))
        ]
        for (place, before), hypotheses in found
    }
    for own in places:
        shared = [word for place in own for word in words_of.get(place, ())]
        for place in own:
            place.add_words(words_of.get(place, shared), tokenizer)


def _move_last(
    places: Sequence[Sequence[TermPlace]],
    score_of: Mapping[Beginning, float],
    tokenizer: TextTokenizer,
    options: SearchOptions,
) -> None:
    """Let the last place of each draft follow the likeliest beginnings up to the others."""
    for own in places:
        before = ""
        for place in own[:-1]:
            before += place.likeliest(score_of).text[place.start :]
        own[-1].move(before, tokenizer, options)


def _tokens_of_beginnings(places: Iterable[TermPlace]) -> int:
    """The tokens of all beginnings of some places."""
    return sum(len(each.token_ids) for place in places for each in place.beginnings)


def _lacking(drafts: Sequence[Draft], tokenizer: TextTokenizer) -> list[Draft]:
    return [draft for draft in drafts if draft.lacks_terms(tokenizer)]
