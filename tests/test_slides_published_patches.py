"""The published patches: their counts, what divides them, and their names as published."""

import collections
import gzip
import os
import pathlib

import numpy as np
import pytest

from wsol_jax.data import camelyon16, splits
from wsol_jax.slides import published_patches

FOLDS = published_patches.DIVISIONS[1:]


def count(split, **options):
    patches = published_patches.read(split, **options)
    assert len({patch.name for patch in patches}) == len(patches)
    return len(patches), sum(patch.label for patch in patches)


def slides(split, **options):
    return {patch.slide for patch in published_patches.read(split, **options)}


def test_counts_by_slide():
    assert count("train") == (24_348, 12_174)
    assert count("valcl") == (8_858, 4_429)
    assert count("test") == (15_664, 7_832)


@pytest.mark.parametrize("fold", FOLDS)
def test_counts_by_patch(fold):
    held_out = 6_638 if fold == "patch_fold4" else 6_642
    assert count("train", division=fold) == (33_206 - held_out, (33_206 - held_out) // 2)
    assert count("valcl", division=fold) == (held_out, held_out // 2)
    assert count("valpx", division=fold) == (10, 5)
    test = published_patches.read("test", division=fold)
    assert test == published_patches.read("test")


def test_no_slide_is_in_two_splits_by_slide():
    splits = [slides(split) for split in ("train", "valcl", "test")]
    assert [len(split) for split in splits] == [215, 55, 128]
    assert len(set.union(*splits)) == 398


@pytest.mark.parametrize("fold", FOLDS)
def test_folds_by_patch_share_their_slides(fold):
    train, valcl = ({*published_patches.read(s, division=fold)} for s in ("train", "valcl"))
    assert not train & valcl
    assert train | valcl == {*published_patches.read("train"), *published_patches.read("valcl")}
    assert {*published_patches.read("valpx", division=fold)} <= valcl
    alone = slides("valcl", division=fold) - slides("train", division=fold)
    assert alone == ({"tumor_017", "tumor_067"} if fold == "patch_fold1" else set())


def test_every_training_patch_is_held_out_once():
    held_out = collections.Counter(
        patch for fold in FOLDS for patch in published_patches.read("valcl", division=fold)
    )
    assert len(held_out) == held_out.total() == 33_206


def test_what_the_protocol_says_of_a_patch():
    for split in ("train", "valcl", "test"):
        for patch in published_patches.read(split):
            assert patch.tissue >= 0.1
            assert patch.tumor >= 0.2 if patch.label else patch.tumor == 0
            assert patch.slide.startswith("normal") <= (patch.label == 0)


def test_a_name_as_published():
    first = published_patches.read("train", division="patch_fold3")
    (patch,) = (p for p in first if p.slide == "tumor_109" and (p.x, p.y) == (99_625, 39_552))
    assert patch.name == (
        "camelyon16/w-512xh-512/metastatic-patches/training/tumor/tumor_109/"
        "Patch_file_training-tumor-tumor_109.tif_reg_1_row_4_patch_12_x_99625_y_39552_"
        "tissue_0.6142768859863281_metastatic_0.9100494384765625_w_512_h_512.png"
    )


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown split 'valpx'; have "):
        published_patches.read("valpx")
    with pytest.raises(ValueError, match="unknown division 'fold0'; have "):
        published_patches.read("train", division="fold0")


@pytest.mark.skipif(
    "WSOL_CAMELYON16_LISTS" not in os.environ,
    reason="WSOL_CAMELYON16_LISTS names no folder of the released lists",
)
def test_names_are_those_released():
    folder = pathlib.Path(os.environ["WSOL_CAMELYON16_LISTS"])
    lists = {
        "survey_split0_fold0_train": ("train", "slide_disjoint"),
        "survey_split0_fold0_valid": ("valcl", "slide_disjoint"),
        "test_all_folds": ("test", "slide_disjoint"),
    }
    for fold in range(5):
        for split in ("train", "valcl", "valpx"):
            lists[f"wsol_fold-{fold}_{split}"] = (split, f"patch_fold{fold}")
    for name, (split, division) in lists.items():
        lines = gzip.decompress((folder / f"{name}.txt.gz").read_bytes()).decode().split()
        patches = published_patches.read(split, division=division)
        assert sorted(lines) == sorted(f"{patch.name},{patch.label}" for patch in patches)


@pytest.mark.parametrize("division", ["slide_disjoint", "patch_fold0"])
def test_every_window_of_the_training_patches_has_both_classes(division):
    """The published list begins with all normal slides: so would an epoch shuffled in windows."""
    listed = published_patches.read("train", division=division)
    labels = np.array([patch.label for patch in camelyon16.mixed(listed)])
    windows = np.split(labels, range(splits.WINDOW, len(labels), splits.WINDOW))
    assert len(windows) > 10
    for window in windows:
        assert abs(window.mean() - labels.mean()) < 4 * np.sqrt(0.25 / len(window))
    assert np.ptp([patch.label for patch in listed[: splits.WINDOW]]) == 0
