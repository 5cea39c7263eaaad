"""Training in several processes that torchrun starts, as users do it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.data.masked_text import MaskedDataset
from attendant_export.data.tokenizer import train_bert_tokenizer
from attendant_export.runs.checkpoint import read_json
from attendant_export.runs.history import History
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup, join_processes

from tests.support.bundles import write_pairs

SIZES = (
    "--vocab-size 150 --d-model 32 --num-heads 2 --d-feed-forward 64 --dropout 0 --device cpu "
    "--precision fp32 --train train.tsv --valid valid.tsv "
)
TRANSLATION = (
    f"train-translation {SIZES} --num-encoder-layers 1 --num-decoder-layers 1 "
    "--max-batch-tokens 300 --warmup-steps 5 --learning-rate 0.005 --validate-every-steps 2 "
    "--accumulate-steps 2 "
)
BERT = (
    f"train-bert {SIZES} --text text.txt:1000 --num-layers 1 --pre-norm --max-tokens 16 "
    "--max-pairs 31 --max-batch-tokens 200 --embeddings-max-steps 4 "
    "--embeddings-validate-every-steps 2 --mlm-max-steps 4 --mlm-validate-every-steps 2 "
    "--contrastive-max-steps 4 --contrastive-validate-every-steps 2 "
)
WORD_VECTORS = (
    "train-word-vectors --train train.tsv --valid valid.tsv --min-count 1 --dimensions 8 "
    "--max-pairs 31 --warmup-steps 2 --max-steps 6 --validate-every-steps 2 --accumulate-steps 2 "
    "--device cpu "
)
TEACHER = next((Path(__file__).parents[2] / "bundles" / "bert-en-de").iterdir())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = write_pairs(tmp_path_factory.mktemp("data"))
    (folder / "text.txt").write_text("The dog waits.\nThe king waits too.\n\nAnother document.\n")
    return folder


@contextmanager
def started(
    command: str, data_dir: Path, run_dir: Path, num_processes: int
) -> Iterator["subprocess.Popen[str]"]:
    """Train in ``num_processes``. Yields torchrun, and waits for its end."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    program = [sys.executable, *(torchrun if num_processes > 1 else [])]
    program += ["-m", "attendant_export", *command.split()]
    program += ["--data-dir", str(data_dir), "--run-dir", str(run_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    print(output)


def train(command: str, data_dir: Path, run_dir: Path, num_processes: int) -> None:
    with started(command, data_dir, run_dir, num_processes) as process:
        pass
    assert process.returncode == 0


def curve(run_dir: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name != "minutes"}
        for row in History(run_dir).rows
    ]


def assert_same_run(run_dir: Path, other: Path) -> None:
    assert curve(run_dir)
    assert curve(run_dir) == [pytest.approx(row, rel=1e-5) for row in curve(other)]


@pytest.fixture(scope="module")
def lone_run(data_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(TRANSLATION + "--max-steps 10", data_dir, folder, 1)
    return folder


def test_two_processes_train_a_translation_model_as_one_does(data_dir, lone_run, tmp_path, capfd):
    train(TRANSLATION + "--max-steps 10", data_dir, tmp_path, 2)

    assert_same_run(tmp_path, lone_run)
    assert capfd.readouterr().out.count("finished with best BLEU") == 1


@pytest.mark.slow
def test_two_processes_train_all_phases_of_a_bert_as_one_does(data_dir, tmp_path):
    # The tokenizer is trained only once, because each training may order ties differently.
    start = tmp_path / "start"
    main([*BERT.split(), "--data-dir", str(data_dir), "--run-dir", str(start)])

    for num_processes in (1, 2):
        begun = f"{BERT} --init-from {start} --teacher {TEACHER} --teacher-text text.txt"
        train(begun, data_dir, tmp_path / str(num_processes), num_processes)

    for phase in ("embeddings", "mlm", "."):
        assert_same_run(tmp_path / "2" / phase, tmp_path / "1" / phase)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["skip-gram", "glove"])
def test_two_processes_train_word_vectors_as_one_does(objective, data_dir, tmp_path):
    for num_processes in (1, 2):
        begun = f"{WORD_VECTORS} --objective {objective}"
        train(begun, data_dir, tmp_path / str(num_processes), num_processes)

    assert_same_run(tmp_path / "2", tmp_path / "1")


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_and_the_run_goes_on_later(
    data_dir, lone_run, tmp_path
):
    with started(TRANSLATION + "--max-steps 100000", data_dir, tmp_path, 2) as torchrun:
        while not (tmp_path / "last/state.json").exists():
            time.sleep(0.05)
        os.kill(children(torchrun.pid)[-1], signal.SIGTERM)

    stopped_at = read_json(tmp_path / "last/state.json")["step"]
    assert 2 <= stopped_at < 100_000

    train(TRANSLATION + f"--max-steps {stopped_at + 2}", data_dir, tmp_path, 2)
    assert read_json(tmp_path / "last/state.json")["step"] == stopped_at + 2


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_two_processes_end_together_when_the_time_is_over(data_dir, tmp_path, capfd):
    train(TRANSLATION + "--max-minutes 0.02", data_dir, tmp_path, 2)

    assert "finished with best BLEU" in capfd.readouterr().out
    assert curve(tmp_path)[-1]["step"] == read_json(tmp_path / "last/state.json")["step"]


def test_the_shares_of_a_masked_batch_are_the_whole():
    texts = [f"The dog sees number {i} and more than {i} others." for i in range(7)]
    tokenizer = train_bert_tokenizer(texts, 120)
    sequences = [np.array(e.ids, dtype=np.int32) for e in tokenizer.encode_batch(texts)]
    dataset = MaskedDataset(sequences, tokenizer, mask_ratio=0.5)
    (batch,) = dataset.batches(10_000, np.random.default_rng(1))

    shares = [batch.share(ProcessGroup(rank, 3).rows, torch.device("cpu")) for rank in range(3)]

    assert sum(len(share.targets) for share in shares) == batch.num_targets == len(batch.targets)
    for rank, share in enumerate(shares):
        rows = torch.zeros_like(batch.token_ids)
        rows[batch.is_target] = batch.targets
        torch.testing.assert_close(rows[rank::3][share.is_target], share.targets)
        torch.testing.assert_close(batch.token_ids[rank::3], share.token_ids)


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes(torch.device("cpu")) as processes:
        assert processes == SINGLE_PROCESS


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ValueError, match="process 1 has no GPU of its own: there are 1 here"),
        join_processes(torch.device("cuda")),
    ):
        pass
