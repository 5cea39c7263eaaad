"""An upgraded bundle of version 1 has a manifest of version 2 and is otherwise unchanged."""

import json
import shutil
from pathlib import Path

import pytest
from attendant.v1.architecture_pb2 import NORM_POSITION_POST, NORM_POSITION_PRE
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.verify import verify_bundle
from attendant_manifest import parse_manifest

ROOT = Path(__file__).parents[2]
BUNDLES = sorted((ROOT / "tests/recorded/bundles").glob("*/*"))


@pytest.fixture(params=BUNDLES, ids=lambda folder: folder.parent.name)
def bundle(request, tmp_path: Path) -> Path:
    folder: Path = request.param
    return Path(shutil.copytree(folder, tmp_path / folder.parent.name / folder.name))


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}


def test_an_upgraded_bundle_is_of_version_2_and_gives_its_reference_outputs(bundle: Path):
    before = files_of(bundle)

    assert "was of version 1 and is of version 2 now" in upgrade_bundle(bundle)

    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 2
    assert files_of(bundle) == before
    assert len(verify_bundle(bundle)) > 1


def test_only_facts_that_version_1_does_not_state_are_added(bundle: Path):
    in_memory = parse_manifest((bundle / "manifest.json").read_text(encoding="utf-8"))
    upgrade_bundle(bundle)
    written = read_manifest(bundle)

    is_pre_norm = written.architecture.HasField("decoder")  # the trainer's default
    expected = NORM_POSITION_PRE if is_pre_norm else NORM_POSITION_POST
    assert written.architecture.encoder.norm_position == expected
    positions = written.architecture.source_embeddings.positions
    assert positions.num_positions == (0 if is_pre_norm else 64)
    assert written.architecture.source_embeddings.num_token_types == (0 if is_pre_norm else 2)
    for manifest in (in_memory, written):
        manifest.architecture.source_embeddings.positions.ClearField("num_positions")
        manifest.architecture.source_embeddings.ClearField("num_token_types")
        for name in ("encoder", "decoder"):
            stack = getattr(manifest.architecture, name)
            stack.ClearField("norm_position")
            stack.ClearField("has_final_norm")
    assert written == in_memory


def test_a_bundle_of_version_2_stays_as_it_is(bundle: Path):
    upgrade_bundle(bundle)
    before = (bundle / "manifest.json").read_bytes()
    assert "is of version 2 already" in upgrade_bundle(bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_damaged_bundle_is_not_upgraded(bundle: Path):
    before = (bundle / "manifest.json").read_bytes()
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="tokenizer.json has another SHA-256"):
        upgrade_bundle(bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_bundle_that_breaks_a_rule_is_not_upgraded(bundle: Path):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["special_tokens"]["unk_id"] = 2**31
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="special_tokens.unk_id is outside the vocabulary"):
        upgrade_bundle(bundle)
    assert json.loads(path.read_text()) == manifest


def test_the_folder_may_be_the_working_directory(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(bundle)
    upgrade_bundle(Path())
    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 2
