"""Scores on other images: kept apart by where they come from, replaced only by their own."""

import pathlib

import pytest
import small
from ml_collections import ConfigDict

from wsol_jax import files, identity, trained, transfer


def test_folders_of_ones_own_are_told_apart_by_their_names(tmp_path):
    targets = [ConfigDict({"name": "folder", "folder": f"data/{name}"}) for name in ("a", "b/")]
    names = [transfer.path(tmp_path, target).name for target in targets]
    assert names == ["on_folder_a.json", "on_folder_b.json"]


def test_scores_on_other_images_are_not_replaced(tmp_path, monkeypatch):
    split, config = small.small_data().test, small.small_config("classifier")
    target = ConfigDict({"name": "folder", "folder": str(tmp_path / "hospital")})
    monkeypatch.setattr(trained, "phases", lambda *_: ())
    file = transfer.path(tmp_path, target)
    for _ in range(2):  # of the same images they are
        transfer.run(config, tmp_path, target, split)
    before = file.read_bytes()
    others = split._replace(labels=1 - split.labels)
    with pytest.raises(FileExistsError, match=r"on_folder_hospital\.json holds scores on other"):
        transfer.run(config, tmp_path, target, others)
    assert file.read_bytes() == before
    elsewhere = ConfigDict({"name": "glas", "folder": str(pathlib.Path("anywhere"))})
    files.write_json(transfer.path(tmp_path, elsewhere), {"fingerprint": "of another division"})
    written = transfer.run(config, tmp_path, elsewhere, split)
    assert written["fingerprint"] == identity.fingerprint({"test": split})
