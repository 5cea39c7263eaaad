import itertools
import shutil
import signal
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from attendant_export.runs import checkpoint
from attendant_export.runs.history import History
from attendant_export.stopping import Stopped
from attendant_export.train.device import pick_device
from attendant_export.train.loop import Task, Trainer, TrainingDiverged
from attendant_export.train.schedule import RANGES, TrainingOptions, learning_rate_ratio
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

OPTIONS = TrainingOptions(
    max_steps=12, learning_rate=1e-2, warmup_steps=4, validate_every_steps=3, patience=99
)


class Regression:
    """A task that learns a fixed matrix through dropout, and records every loss."""

    def __init__(self, stop_at_step=None, stop_by=signal.SIGTERM):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.stop_at_step, self.stop_by = stop_at_step, stop_by
        self.validate = lambda: {"minus_loss": -self.losses[-1]}

    def batches(self, epoch):
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(5):
            yield torch.randn(16, 4, generator=generator)

    def loss(self, batch):
        loss = (self.model(batch) - batch[:, :2]).square().mean()
        self.losses.append(loss.item())
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        if len(self.losses) == self.stop_at_step:
            signal.raise_signal(self.stop_by)
        return loss

    def train(self, run_dir, options=OPTIONS, **given):
        task = Task(self.batches, 5, self.loss, self.validate)
        self.trainer = Trainer(self.model, task, options, run_dir, show_progress=False, **given)
        return self.trainer.train()


def step_of(run_dir):
    return checkpoint.read_json(run_dir / "last/state.json")["step"]


def weights_in(folder):
    model = Regression().model
    checkpoint.load_weights(folder / "weights.safetensors", model)
    return list(model.parameters())


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path):
    whole, first, second = Regression(), Regression(stop_at_step=7), Regression()

    whole.train(tmp_path / "whole")
    with pytest.raises(Stopped):
        first.train(tmp_path / "parts")
    progress = second.train(tmp_path / "parts")

    assert first.losses + second.losses == whole.losses
    assert progress.step == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_training_after_its_step_with_a_checkpoint(tmp_path, number):
    before = signal.signal(number, signal.SIG_DFL)  # nohup, for example, ignores hangups
    try:
        with pytest.raises(Stopped, match=number.name) as stopped:
            Regression(stop_at_step=7, stop_by=number).train(tmp_path)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)

    assert stopped.value.stopped_by == number
    assert step_of(tmp_path) == 7
    assert History(tmp_path).rows[-1]["step"] == 6, "a validation can take minutes"


def test_a_training_that_ignores_hangups_goes_on(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        progress = Regression(stop_at_step=7, stop_by=signal.SIGHUP).train(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert progress.step == 12


def test_a_signal_ends_a_validation_and_costs_no_step(tmp_path):
    whole, first, second = Regression(), Regression(), Regression()

    def stop():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the validation went on")

    whole.train(tmp_path / "whole")
    first.validate = stop
    with pytest.raises(Stopped):
        first.train(tmp_path / "parts")
    assert step_of(tmp_path / "parts") == 3
    assert History(tmp_path / "parts").rows == []

    second.train(tmp_path / "parts")

    assert first.losses + second.losses == whole.losses


def test_the_last_validation_is_made_up_for_after_a_signal(tmp_path):
    stopped, again = Regression(), Regression()

    def stop():
        if len(stopped.losses) == 12:
            signal.raise_signal(signal.SIGTERM)
        return {"value": 1.0}

    stopped.validate, again.validate = stop, lambda: {"value": 2.0}
    with pytest.raises(Stopped):
        stopped.train(tmp_path)

    progress = again.train(tmp_path)

    assert (again.losses, progress.best) == ([], 2.0)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda loss: loss * float("nan"),
        lambda loss: loss * float("inf"),
        lambda loss: loss + float("nan"),  # The gradient is finite.
    ],
)
def test_a_loss_that_is_not_finite_ends_a_training_with_the_checkpoint_before(
    tmp_path, spoiled, monkeypatch
):
    task = Regression()
    learn = task.loss
    monkeypatch.setattr(
        task,
        "loss",
        lambda batch: spoiled(learn(batch)) if len(task.losses) == 6 else learn(batch),
    )

    with pytest.raises(TrainingDiverged, match="in step 7; the last checkpoint and the best one"):
        task.train(tmp_path)

    assert step_of(tmp_path) == 6
    assert all(weights.isfinite().all() for weights in weights_in(tmp_path / "last"))
    assert (tmp_path / "best/weights.safetensors").exists()


def test_a_disk_without_space_for_checkpoints_is_refused_before_the_first_step(
    tmp_path, monkeypatch
):
    task = Regression()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))

    with pytest.raises(OSError, match="checkpoints need 0 MB, but only 0 MB of the disk are free"):
        task.train(tmp_path)

    assert task.losses == []


def test_weights_that_cannot_be_written_are_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="no-folder/weights"):
        checkpoint.save_weights(tmp_path / "no-folder/weights.safetensors", nn.Linear(1, 1))


class Recorded(Regression):
    """Keeps the weights after each step and those that each validation sees."""

    def __init__(self, **stop):
        super().__init__(**stop)
        self.stepped, self.validated = [], []
        self.validate = self._validate

    def _validate(self):
        self.validated.append(self.weights())
        return {"minus_loss": -self.losses[-1] if self.losses else 0.0}

    def weights(self):
        return [p.detach().clone() for p in self.model.parameters()]

    def loss(self, batch):
        if self.losses:
            self.stepped.append(self.weights())
        return super().loss(batch)


AVERAGED = replace(OPTIONS, average_decay=0.6)


def test_validations_and_exports_use_the_average_of_the_weights(tmp_path):
    task = Recorded()
    first = task.weights()

    task.train(tmp_path, replace(AVERAGED, max_steps=3))

    average, steps = first, [*task.stepped, weights_in(tmp_path / "last")]
    for step, weights in enumerate(steps, 1):
        decay = min(0.6, step / (step + 9))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    torch.testing.assert_close(task.validated, [average])
    torch.testing.assert_close(weights_in(tmp_path / "best"), average)
    torch.testing.assert_close(task.weights(), average)


def test_an_average_goes_on_after_a_stop(tmp_path):
    whole, first, second = Recorded(), Recorded(stop_at_step=7), Recorded()

    whole.train(tmp_path / "whole", AVERAGED)
    with pytest.raises(Stopped):
        first.train(tmp_path / "parts", AVERAGED)
    second.train(tmp_path / "parts", AVERAGED)

    torch.testing.assert_close(first.validated + second.validated, whole.validated)
    assert first.losses + second.losses == whole.losses


def test_an_average_of_a_run_without_one_begins_with_its_weights(tmp_path):
    Regression().train(tmp_path)
    task = Recorded()
    task.validate = lambda: {"value": 9.0}

    task.train(tmp_path, replace(AVERAGED, max_steps=13))

    assert (tmp_path / "last/average.safetensors").exists()


def kept_mean(task, run_dir, num_averaged):
    """The mean of kept weights in the order of the parameters."""
    mean = checkpoint.read_mean(run_dir, num_averaged)
    return [mean[name] for name, _ in task.model.named_parameters()]


def test_the_weights_of_the_latest_validations_are_kept_and_averaged(tmp_path):
    task = Recorded()

    task.train(tmp_path, replace(OPTIONS, keep_checkpoints=2))

    kept = checkpoint.kept_weights(tmp_path)
    assert [int(path.stem) for path in kept] == [9, 12]  # a validation every three steps
    mean = kept_mean(task, tmp_path, 2)
    expected = [sum(weights) / 2 for weights in zip(*task.validated[-2:], strict=True)]
    torch.testing.assert_close(mean, expected)
    with pytest.raises(ValueError, match="--average 3: .* has kept the weights of 2 validations"):
        checkpoint.read_mean(tmp_path, 3)


def test_kept_weights_are_not_averaged_after_a_run_has_gone_on_without_keeping_any(tmp_path):
    task = Recorded()
    task.train(tmp_path, replace(OPTIONS, keep_checkpoints=2))
    task.train(tmp_path, replace(OPTIONS, max_steps=15))
    with pytest.raises(ValueError, match="no weights after step 12, but its last .* step 15"):
        checkpoint.read_mean(tmp_path, 2)


def test_weights_that_are_kept_are_the_validated_averages(tmp_path):
    task = Recorded()

    task.train(tmp_path, replace(AVERAGED, keep_checkpoints=1))

    torch.testing.assert_close(kept_mean(task, tmp_path, 1), task.validated[-1])


def test_a_run_too_short_for_its_warm_up_warms_up_in_its_first_quarter(tmp_path, caplog):
    task = Regression()

    with caplog.at_level("WARNING"):
        task.train(tmp_path, replace(OPTIONS, max_steps=40, warmup_steps=400))

    assert "allows about 40 steps, too few for a warm-up of 400 steps" in caplog.text
    assert max(task.rates) == pytest.approx(OPTIONS.learning_rate * 0.78, rel=0.05)
    assert task.rates.index(max(task.rates)) in range(8, 12)


def test_a_run_long_enough_for_its_warm_up_warns_of_nothing(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        Regression().train(tmp_path, replace(OPTIONS, max_steps=16, warmup_steps=4))

    assert caplog.text == ""


def test_a_last_validation_that_is_killed_costs_no_step_and_is_made_up_for(tmp_path):
    killed, again = Regression(), Regression()
    values = iter([{"value": 1.0}, {"value": 2.0}])
    killed.validate = lambda: next(values)
    with pytest.raises(StopIteration):
        killed.train(tmp_path, replace(OPTIONS, max_steps=7))
    again.validate = lambda: {"value": 3.0}

    progress = again.train(tmp_path, replace(OPTIONS, max_steps=7))

    assert again.losses == []
    assert (progress.step, progress.best) == (7, 3.0)
    assert History(tmp_path).rows[-1] == {"step": 7, "minutes": pytest.approx(0, abs=1), "value": 3}


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    whole, first, second = Regression(), Regression(), Regression()
    whole.train(tmp_path / "whole")

    def crash(path, value):
        if value["step"] == 6:
            raise OSError("disk full")
        write_json(path, value)

    write_json = checkpoint.write_json
    monkeypatch.setattr(checkpoint, "write_json", crash)
    with pytest.raises(OSError, match="disk full"):
        first.train(tmp_path / "parts")
    monkeypatch.undo()

    assert step_of(tmp_path / "parts") == 3
    second.train(tmp_path / "parts")
    assert second.losses == whole.losses[3:]


def test_a_crash_while_checkpoints_are_swapped_is_undone(tmp_path):
    Regression().train(tmp_path)
    (tmp_path / "last").rename(tmp_path / "last.old")
    again = Regression()

    again.train(tmp_path)

    assert again.losses == []
    assert step_of(tmp_path) == 12


def test_a_crash_before_the_best_weights_are_kept_is_made_up_for(tmp_path, monkeypatch):
    crashed = Regression()
    crashed.validate = lambda: {"value": float(len(crashed.losses) == 12)}

    def crash(run_dir):
        if step_of(run_dir) == 12:
            raise OSError("disk full")
        keep(run_dir)

    keep = checkpoint.keep_last_as_best
    monkeypatch.setattr(checkpoint, "keep_last_as_best", crash)
    with pytest.raises(OSError, match="disk full"):
        crashed.train(tmp_path)
    monkeypatch.undo()

    progress = Regression().train(tmp_path)

    assert progress.best == 1
    torch.testing.assert_close(weights_in(tmp_path / "best"), weights_in(tmp_path / "last"))


def test_a_run_of_an_older_version_is_not_validated_again(tmp_path):
    Regression().train(tmp_path)
    state = checkpoint.read_json(tmp_path / "last/state.json")
    del state["validated_step"]
    checkpoint.write_json(tmp_path / "last/state.json", state)
    again = Regression()
    again.validate = lambda: pytest.fail("validated again")

    assert again.train(tmp_path).step == 12


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


def test_the_learning_rate_falls_within_an_epoch_too(tmp_path):
    task = Regression()

    progress = task.train(tmp_path, replace(OPTIONS, max_steps=None, max_epochs=2, warmup_steps=1))

    assert progress.step == 10
    falls = [1e-2 * (0.02 + 0.98 * (1 - step / 10)) for step in range(10)]
    assert task.rates == pytest.approx(falls)


def test_the_batches_of_a_step_are_of_one_epoch_and_a_resumed_run_goes_on_within_it(tmp_path):
    two = replace(OPTIONS, accumulate_steps=2, max_steps=7)
    whole, first, second = Regression(), Regression(stop_at_step=9), Regression()

    whole.train(tmp_path / "whole", two)
    with pytest.raises(Stopped):
        first.train(tmp_path / "parts", two)
    progress = second.train(tmp_path / "parts", two)

    assert len(whole.losses) == 5 + 5 + 2  # Two, two and one batch of each epoch of five.
    assert first.losses + second.losses == whole.losses
    assert (progress.epoch, progress.batch) == (2, 2)


def board_values(run_dir, tag):
    accumulator = EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def test_curves_for_tensorboard_are_those_of_the_run_also_after_a_stop(tmp_path):
    long = replace(OPTIONS, max_steps=50, validate_every_steps=20)
    first, second = Regression(stop_at_step=47), Regression()

    with pytest.raises(Stopped):
        first.train(tmp_path, long, tensorboard=True)
    second.train(tmp_path, long, tensorboard=True)

    rows = {row["step"]: row for row in History(tmp_path).rows}
    losses, rates = (board_values(tmp_path, tag) for tag in ("training_loss", "learning_rate"))
    assert losses == {step: pytest.approx(rows[step]["training_loss"]) for step in (20, 40)}
    assert rates == {step: pytest.approx(rows[step]["learning_rate"]) for step in (20, 40)}
    assert board_values(tmp_path, "minus_loss") == {
        step: pytest.approx(rows[step]["minus_loss"]) for step in (20, 40, 50)
    }


def test_a_run_writes_for_tensorboard_only_when_asked_to(tmp_path):
    Regression().train(tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_a_history_that_cannot_be_written_is_kept_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    history = History(tmp_path)
    for step in range(100):
        history.append({"step": step})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            history.append({"step": 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert len(History(tmp_path).rows) == 100


def test_curves_have_titles_and_the_name_of_the_run(tmp_path):
    history = History(tmp_path / "$a$ b")
    history.rows = [
        {"step": 1, "minutes": 0.5, "training_loss": 3.0, "chrf": 1.0, "news.bleu": 2.0}
    ]

    figure = history.figure()

    titles = ["Minutes of training", "Training loss", "chrF", "BLEU (news)"]
    assert [axes.get_title() for axes in figure.axes] == titles
    assert figure.axes[-1].get_xlabel() == "Step"
    assert figure.get_suptitle() == "$a$ b"
    figure.canvas.draw()


def test_a_task_without_batches_is_refused(tmp_path):
    task = Task(lambda epoch: iter(()), 0, lambda batch: batch, dict)
    with pytest.raises(ValueError, match="no text to train on"):
        Trainer(nn.Linear(1, 1), task, OPTIONS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_steps": 0}, "max_steps is 0, but must be an integer of at least 1"),
        ({"patience": 2.5}, "patience is 2.5, but must be an integer of at least 1"),
        ({"max_minutes": 0}, "max_minutes is 0, but must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, but must be a number above 0"),
        ({"average_decay": 1}, "average_decay is 1, but must be a number from 0 to below 1"),
        ({"seed": 2**32}, "seed is 4294967296, but must be an integer from 0 to 4294967295"),
    ],
)
def test_an_option_out_of_its_range_is_named_with_the_range(changes, problem):
    with pytest.raises(ValueError, match=f"^{problem}$"):
        TrainingOptions(**({"max_steps": 1} | changes))


def test_all_options_out_of_their_ranges_are_named_at_once():
    with pytest.raises(ValueError, match="^max_steps is -1, .*; seed is -1, "):
        TrainingOptions(max_steps=-1, seed=-1)


def test_every_number_of_a_training_has_a_range():
    assert set(RANGES) == {field.name for field in fields(TrainingOptions)}


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=f"device '{name}' is not auto, cpu or cuda"):
        pick_device(name)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no CUDA device"):
        pick_device("cuda")


def test_a_training_without_any_limit_is_refused():
    with pytest.raises(ValueError, match="max_steps, max_epochs and max_minutes"):
        TrainingOptions()


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


def test_a_damaged_file_of_an_optimizer_is_named(tmp_path):
    (tmp_path / "o.safetensors").write_bytes(b"no state")

    with pytest.raises(ValueError, match=r"o\.safetensors"):
        checkpoint.load_optimizer(
            tmp_path / "o.safetensors", torch.optim.AdamW(nn.Linear(1, 1).parameters())
        )


def test_a_run_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was trained there"):
        checkpoint.find_weights(tmp_path)
