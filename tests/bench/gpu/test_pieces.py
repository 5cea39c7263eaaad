from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.gpu import pieces
from bench.gpu.pieces import join, split


def write_run(folder: Path, seed: int = 0, num_weights: int = 5000) -> Path:
    (folder / "best").mkdir(parents=True)
    (folder / "last").mkdir()
    torch.manual_seed(seed)
    save_file({"weight": torch.randn(num_weights)}, folder / pieces.WEIGHTS)
    save_file({"weight": torch.randn(9)}, folder / "last/optimizer.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_runs_are_joined_with_their_weights_in_half_the_size(tmp_path: Path, out: Path):
    runs = [write_run(tmp_path / name, seed) for seed, name in enumerate(("en-de", "de-en"))]
    paths = split(runs, out)
    assert len(paths) == 4
    assert all(path.stat().st_size <= 10_000 for path in paths)

    assert join(out, tmp_path / "joined") == ["de-en", "en-de"]
    for run in runs:
        joined = tmp_path / "joined" / run.name
        exact, found = (load_file(each / pieces.WEIGHTS)["weight"] for each in (run, joined))
        assert found.dtype == torch.float16
        assert torch.equal(found, exact.half())
        assert (joined / "config.json").read_text() == "{}"
        assert not (joined / "last/optimizer.safetensors").exists()


def test_pieces_of_more_runs_take_the_place_of_earlier_ones(tmp_path: Path, out: Path):
    first, second = write_run(tmp_path / "en-de"), write_run(tmp_path / "de-en", 1)
    split([first], out)
    (out / "figures.log").write_text("kept")
    paths = split([first, second], out)
    assert set(out.iterdir()) == {*paths, out / "figures.log"}


def test_an_incomplete_or_damaged_archive_is_refused(tmp_path: Path, out: Path):
    paths = split([write_run(tmp_path / "en-de")], out)
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="are damaged"):
        join(out, tmp_path / "joined")
    paths[0].unlink()
    with pytest.raises(ValueError, match="has 0 complete archives, want one"):
        join(out, tmp_path / "joined")


def test_a_run_that_exists_is_not_replaced(tmp_path: Path, out: Path):
    run = write_run(tmp_path / "en-de")
    split([run], out)
    with pytest.raises(FileExistsError, match="en-de exists already"):
        join(out, tmp_path)


def test_too_large_runs_and_those_without_weights_are_refused(tmp_path: Path, out: Path):
    with pytest.raises(ValueError, match=r"1 runs are 112,640 bytes; the limit is 40,000"):
        split([write_run(tmp_path / "large", num_weights=50_000)], out)
    with pytest.raises(FileNotFoundError, match="nothing was trained there yet"):
        split([tmp_path / "none"], out)
