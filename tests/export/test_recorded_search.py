"""The recorder of the original's beam search keeps what that search keeps."""

import torch
from attendant_export.verify.recorded_search import BeamRecorder

START, EOS = 9, 3


def token_ids(hypotheses):
    return [hypothesis.token_ids for hypothesis in hypotheses]


def test_a_step_holds_the_candidates_that_the_search_kept_of_nearly_equal_ones():
    recorder = BeamRecorder(beam_size=2, eos_id=EOS, normalizes=False)
    # The search has rounded the sum of the token 2 to a greater value than that of the token 1.
    recorder(torch.tensor([[START], [START]]), torch.tensor([[-1.0, -1.5, -1.50001, -1.2]] * 2))
    recorder(torch.tensor([[START, 0], [START, 2]]), torch.tensor([[-1.0, -2.0, -9.0, -9.0]] * 2))
    first, last = recorder.steps
    assert token_ids(first.running) == [(0,), (2,)]
    assert token_ids(first.best) == [(0,), (EOS,)]
    assert token_ids(last.running) == [(0, 0), (2, 0)]
