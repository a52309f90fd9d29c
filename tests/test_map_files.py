"""Maps as other people write them: what is read, and what is refused by name."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsol_jax import map_files, visualize

HEAT = np.random.default_rng(0).random((5, 7), np.float32)
EIGHT, SIXTEEN = (np.rint(HEAT * top).astype(kind) for top, kind in ((255, "u1"), (65535, "u2")))


def write(path, values):
    """A file of the kind that its ending says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix.startswith(".tif"):
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def touch(folder, *names):
    """A folder of empty files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "values", "tolerance"),
    [
        ("a.npy", HEAT, 0),
        ("a.npy", HEAT.astype(np.float64), 0),
        ("a.npy", HEAT.astype(">f4"), 0),
        ("a.npy", HEAT.astype(np.float16), 2**-11),
        ("a.tif", HEAT, 0),
        ("a.tiff", HEAT.astype(">f4"), 0),
        ("a.npy", EIGHT, 0.5 / 255),
        ("a.png", EIGHT, 0.5 / 255),
        ("a.tif", EIGHT, 0.5 / 255),
        ("a.npy", SIXTEEN, 0.5 / 65535),
        ("a.png", SIXTEEN, 0.5 / 65535),
        ("a.tif", SIXTEEN, 0.5 / 65535),
        ("a.TIF", SIXTEEN.astype(">u2"), 0.5 / 65535),
    ],
)
def test_every_kind_is_the_same_map(name, values, tolerance, tmp_path):
    found = map_files.read(write(tmp_path / name.lower(), values).rename(tmp_path / name))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, HEAT, rtol=0, atol=tolerance + 1e-7)


def test_whole_numbers_run_from_0_to_1(tmp_path):
    for kind in ("u1", "u2"):
        ends = np.array([[0, np.iinfo(kind).max]], kind)
        assert map_files.read(write(tmp_path / "a.png", ends)).tolist() == [[0, 1]]
    for name in ("a.npy", "a.png"):
        assert map_files.read(write(tmp_path / name, EIGHT > 99)).tolist() == (EIGHT > 99).tolist()


def test_the_packages_own_pictures_are_read(tmp_path):
    visualize.save_map_png16(tmp_path / "a.png", HEAT)
    np.testing.assert_allclose(map_files.read(tmp_path / "a.png"), HEAT, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.npy", np.where(HEAT > 0.9, np.nan, HEAT), r"of the 35 values of .*a.npy.* as nan"),
        ("a.npy", np.full((3, 4), np.nan), "12 of the 12 values"),
        ("a.npy", 255 * HEAT, r"are not in \[0, 1\]"),
        ("a.npy", HEAT - 0.5, r"are not in \[0, 1\], as -0\."),
        ("a.tif", HEAT + np.float32(np.inf), "35 of the 35 values of .*a.tif.* as inf"),
        ("a.npy", HEAT.astype(complex), "a.npy holds complex128; expected one channel"),
        ("a.npy", EIGHT.astype(np.int64), "a.npy holds int64; expected one channel"),
        ("a.tif", EIGHT.astype(np.int16), "a.tif holds int32; expected"),
        ("a.npy", HEAT[None], r"a.npy has the shape \(1, 5, 7\); expected one channel"),
        ("a.npy", HEAT[:0], r"a.npy has the shape \(0, 7\)"),
        ("a.png", np.stack(3 * [EIGHT], -1), r"a.png has the shape \(5, 7, 3\)"),
        ("a.npy", np.array([[object()]]), "cannot decode .*a.npy.*; expected one channel"),
        ("a.tif", HEAT.astype(np.float16), "cannot decode .*a.tif.*TIFF file of 32 bits"),
        ("a.tif", np.stack(2 * [EIGHT]), "cannot decode .*a.tif: it has a palette, or several"),
    ],
)
def test_other_maps_are_refused_by_name(name, values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        map_files.read(write(tmp_path / name, values))


def test_palettes_and_damaged_files_are_refused_by_name(tmp_path):
    Image.fromarray(EIGHT).convert("P").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"cannot decode .*a\.png: it has a palette"):
        map_files.read(tmp_path / "a.png")
    for name in ("b.npy", "b.png", "b.tif"):
        whole = write(tmp_path / name, SIXTEEN).read_bytes()
        for part in (whole[:-40], b"", b"<html>"):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(ValueError, match=f"cannot decode .*{name}"):
                map_files.read(tmp_path / name)


def test_arrays_come_before_the_pictures_of_them(tmp_path):
    folder = touch(tmp_path / "maps", "b.npy", "a.npy", "a.png", "a_overlay.png", "scores.csv")
    found = map_files.find_maps(folder, ["a", "b"])
    assert found == {"a": folder / "a.npy", "b": folder / "b.npy"}
    pictures = touch(tmp_path / "pictures", "b.PNG", "a.tif")
    assert list(map_files.find_maps(pictures, ["b", "a"])) == ["b", "a"]


def test_files_without_a_partner_are_told(tmp_path):
    folder = touch(tmp_path / "maps", "a.png", "b.png", "b_overlay.png")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 masks have no map in .*maps \['c'\]"):
        map_files.find_maps(folder, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"1 of 3 maps no mask \['b_overlay'\]; expected one map"):
        map_files.find_maps(folder, ["a", "b"])
    many = [f"mask{i}" for i in range(99)]
    with pytest.raises(FileNotFoundError, match=r"99 of 99 .*'mask4'\], 3 of 3 maps no mask \['a'"):
        map_files.find_maps(folder, many)


def test_two_files_of_one_name_are_refused(tmp_path):
    for find in (map_files.find_masks, lambda folder: map_files.find_maps(folder, ["a"])):
        with pytest.raises(ValueError, match=r"two files of one name, a.png and a.tif"):
            find(touch(tmp_path / "twice", "a.png", "a.tif"))


def test_folders_without_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        map_files.find_masks(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no masks in .*; expected files that end in"):
        map_files.find_masks(touch(tmp_path / "jpeg", "a.jpg"))
    with pytest.raises(FileNotFoundError, match=r"1 of 1 masks have no map"):
        map_files.find_maps(tmp_path / "jpeg", ["a"])
