import itertools
import math
from dataclasses import replace

import pytest
import torch
from attendant_export import checkpoint
from attendant_export.bundle_weights import load_start
from attendant_export.dataset import PairBatch
from attendant_export.manifest import BundleError
from attendant_export.training import Task, Trainer, TrainingOptions, learning_rate_ratio
from attendant_export.translation_training import label_smoothed_loss, load_translation_model
from torch import nn

from tests.support.bundles import TINY_TRANSFORMER, train_tiny_translation, write_pairs
from tests.support.graphs import tiny_transformer

OPTIONS = TrainingOptions(
    max_steps=12, learning_rate=1e-2, warmup_steps=4, validate_every_steps=3, patience=99
)


class Regression:
    """Learns a fixed matrix through dropout; remembers every loss."""

    def __init__(self, stop_at_step=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.losses: list[float] = []
        self.stop_at_step = stop_at_step
        self.validate = lambda: {"minus_loss": -self.losses[-1]}

    def batches(self, epoch):
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(5):
            if len(self.losses) == self.stop_at_step:
                raise KeyboardInterrupt
            yield torch.randn(16, 4, generator=generator)

    def loss(self, batch):
        loss = (self.model(batch) - batch[:, :2]).square().mean()
        self.losses.append(loss.item())
        return loss

    def train(self, run_dir, options=OPTIONS):
        task = Task(self.batches, self.loss, self.validate)
        return Trainer(self.model, task, options, run_dir, show_progress=False).train()


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path):
    whole, first, second = Regression(), Regression(stop_at_step=7), Regression()

    whole.train(tmp_path / "whole")
    first.train(tmp_path / "parts")
    progress = second.train(tmp_path / "parts")

    assert first.losses + second.losses == whole.losses
    assert progress.step == 12


def test_a_finished_run_is_not_trained_further(tmp_path):
    Regression().train(tmp_path)
    again = Regression()

    again.train(tmp_path)

    assert again.losses == []


def test_the_best_weights_are_kept_and_loaded_at_the_end(tmp_path):
    task = Regression()
    values = itertools.chain([1.0, 3.0, 2.0], itertools.repeat(0.0))
    kept = []

    def validate():
        kept.append([p.detach().clone() for p in task.model.parameters()])
        return {"value": next(values)}

    task.validate = validate
    progress = task.train(tmp_path)

    assert progress.best == 3.0
    torch.testing.assert_close(list(task.model.parameters()), kept[1])


def test_training_stops_when_validations_get_no_better(tmp_path):
    task = Regression()
    task.validate = lambda: {"value": 0.0}

    progress = task.train(tmp_path, replace(OPTIONS, max_steps=100, patience=2))

    assert progress.step == 9


def test_the_learning_rate_warms_up_then_falls_to_its_last_share():
    options = TrainingOptions(max_steps=100, warmup_steps=10, final_learning_rate_ratio=0.1)

    assert learning_rate_ratio(options, step=0, done=0.0) == pytest.approx(0.1)
    assert learning_rate_ratio(options, step=4, done=0.04) == pytest.approx(0.5)
    assert learning_rate_ratio(options, step=50, done=0.5) == pytest.approx(0.55)
    assert learning_rate_ratio(options, step=100, done=1.0) == pytest.approx(0.1)
    assert learning_rate_ratio(options, step=100, done=1.2) == pytest.approx(0.1)


def test_a_training_without_any_limit_is_refused():
    with pytest.raises(ValueError, match="max_steps, max_epochs and max_minutes"):
        TrainingOptions()


def test_label_smoothed_loss_is_that_computed_by_hand():
    model = tiny_transformer(norm_first=True)
    source = torch.tensor([[5, 6, 2], [7, 2, 0]])
    target_in = torch.tensor([[1, 8, 9], [1, 4, 2]])
    target_out = torch.tensor([[8, 9, 2], [4, 2, 0]])

    loss = label_smoothed_loss(model, PairBatch(source, target_in, target_out), 0.1)

    log_p = model.logits(model(source, target_in)).log_softmax(-1)
    terms = [
        -0.9 * log_p[row, i, target_out[row, i]] - 0.1 * log_p[row, i].mean()
        for row, i in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    ]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_an_untrained_model_has_the_loss_of_a_guess():
    model = tiny_transformer(norm_first=True)
    nn.init.zeros_(model.embedding.weight)
    batch = PairBatch(*(torch.tensor([[5, 6, 2]]) for _ in range(3)))

    assert label_smoothed_loss(model, batch, 0.0).item() == pytest.approx(math.log(50))


def test_loading_weights_lists_all_that_does_not_fit(tmp_path):
    checkpoint.save_weights(tmp_path / "w.safetensors", nn.ModuleDict({"a": nn.Linear(2, 3)}))
    wanted = nn.ModuleDict({"a": nn.Linear(2, 4), "b": nn.Linear(1, 1, bias=False)})

    with pytest.raises(ValueError) as error:
        checkpoint.load_weights(tmp_path / "w.safetensors", wanted)

    for problem in ("a.weight is (3, 2), want (4, 2)", "a.bias is (3,)", "missing b.weight"):
        assert problem in str(error.value)


def test_a_damaged_file_of_weights_is_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")

    with pytest.raises(ValueError, match=r"w\.safetensors"):
        checkpoint.load_weights(tmp_path / "w.safetensors", nn.Linear(1, 1))


def test_a_run_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was trained there"):
        checkpoint.find_weights(tmp_path)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return train_tiny_translation(folder / "run", write_pairs(folder / "data"), max_steps=10)


def test_a_translation_run_leaves_its_best_model_and_its_curve(run_dir):
    model, tokenizer = load_translation_model(run_dir)

    assert model.config.vocab_size == tokenizer.get_vocab_size()
    assert model.config.d_model == TINY_TRANSFORMER.d_model
    assert "bleu" in (run_dir / "history.csv").read_text().splitlines()[0]
    assert (run_dir / "history.png").stat().st_size > 0


def test_training_can_start_from_the_weights_of_a_run(run_dir):
    trained, _ = load_translation_model(run_dir)
    model = type(trained)(trained.config)

    load_start(run_dir, model)

    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_training_can_start_from_the_weights_of_a_translation_bundle(translation_bundle):
    run_dir = translation_bundle.parents[1] / ".tiny-en-de-1" / "run"
    trained, _ = load_translation_model(run_dir)
    model = type(trained)(trained.config)

    load_start(translation_bundle, model)

    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_training_cannot_start_from_a_damaged_bundle(translation_bundle, tmp_path):
    damaged = tmp_path / "1"
    damaged.mkdir()
    for file in translation_bundle.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "weights.fp32.bin").write_bytes(b"something else")

    with pytest.raises(BundleError, match="weights.fp32.bin has another SHA-256"):
        load_start(damaged, tiny_transformer(norm_first=True))
