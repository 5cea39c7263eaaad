"""Clients classify texts and pairs of texts."""


def test_the_labels_of_texts_and_pairs_have_scores(client, script):
    classified = client.classify("aab", top_k=1)
    assert [(each.label, each.score) for each in classified.labels] == [("a", 2.0)]
    assert classified.score == 2.0
    good, bad = client.classify(["b", ""], ["bb", "a"], raw_scores=True)
    assert [(each.label, each.score) for each in good.labels] == [("a", 0.0), ("b", 3.0)]
    assert (bad.labels, bad.error.index) == ((), 1)
    assert (script.requests[0].top_k, list(script.requests[0].text_pairs)) == (1, [])
    assert (script.requests[1].raw_scores, list(script.requests[1].text_pairs)) == (
        True,
        ["bb", "a"],
    )
