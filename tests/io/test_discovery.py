"""Which files of folders and patterns are tomograms, and what is told of the others."""

import os

import mrcfile
import numpy as np
import pytest

from tomoseg.core.errors import RequestError
from tomoseg.io.discovery import Among, discover, tomograms_among
from tomoseg.io.stores import listing
from tomoseg.io.volumes.sources import Found

AMIRA = (
    b"# AmiraMesh BINARY-LITTLE-ENDIAN 3.0\n\ndefine Lattice 5 4 3\n\n"
    b"Lattice { short Data } @1\n\n@1\n"
) + bytes(120)


def touched(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found_in(folder, **options):
    return [one.url.rpartition("/")[2] for one in discover([str(folder)], **options)]


def test_a_folder_stands_for_the_tomograms_directly_in_it(tmp_path):
    names = ["b.mrc", "a.rec", "c.TIF", "d.map.gz", "e.tiff", "f.Rec", "g.MRC.BZ2", "h.map"]
    touched(tmp_path, *names, "j.zarr/zarr.json", "k.mrc/file")
    touched(tmp_path, "notes.txt", ".hidden.mrc", "x.gz", "deeper/i.mrc", "t.mrc.part", "u.star")
    found = discover([str(tmp_path)])
    assert [item.name for item in found] == [*"abcdefghj"]
    assert found[1].url == f"file://{tmp_path}/b.mrc"


def test_files_and_folders_may_be_mixed_and_told_twice(tmp_path):
    touched(tmp_path, "a/one.mrc", "a/two.mrc", "b/three.mrc", "b/four.mrc")
    inputs = [tmp_path / "a", tmp_path / "b/three.mrc", tmp_path / "a/one.mrc"]
    assert [item.name for item in discover([str(i) for i in inputs])] == ["one", "three", "two"]


def test_images_beside_tomograms_are_pictures_of_them(tmp_path):
    touched(
        tmp_path, "both/a.mrc", "both/a_slice.png", "images/a.png", "images/B.PNG", "images/c.t"
    )
    assert [item.name for item in discover([str(tmp_path / "both")])] == ["a"]
    assert [item.name for item in discover([str(tmp_path / "images")])] == ["B", "a"]
    named = [str(tmp_path / "both"), str(tmp_path / "both/a_slice.png")]
    assert [item.name for item in discover(named)] == ["a", "a_slice"]


def test_amira_files_in_a_folder_count_if_they_are_volumes(tmp_path):
    (tmp_path / "a.am").write_bytes(AMIRA)
    (tmp_path / "a.lines.am").write_bytes(b"# AmiraMesh 3D ASCII 3.0\n\ndefine VERTEX 6\n")
    assert [item.name for item in discover([str(tmp_path)])] == ["a"]
    named = [str(tmp_path / "a.lines.am")]
    assert [item.name for item in discover(named)] == ["a.lines"]


def test_tomograms_in_other_stores_are_found(folder):
    folder.write("s/a.mrc", b"")
    folder.write("s/b.zarr/zarr.json", b"")
    folder.write("s/c.txt", b"")
    found = discover([f"{folder.url}/s"])
    assert found == [Found("a", f"{folder.url}/s/a.mrc"), Found("b", f"{folder.url}/s/b.zarr")]


@pytest.mark.parametrize(
    ("names", "inputs", "message"),
    [
        (["a.txt"], ["."], r"no tomogram in .*\. Give files or a folder of \.mrc, "),
        ([], [], "no tomogram in no input"),
        ([], ["none"], "none is not a folder, nor a file of a known kind"),
        (["a.txt"], ["a.txt"], "a.txt is not a folder, nor a file of a known kind"),
        (["a.mrc", "a.rec"], ["."], r"a\.mrc and file://.*a\.rec would both be called a\. Rename"),
        (["x/a.mrc", "y/a.mrc"], ["x", "y"], "would both be called a"),
        (["a b.mrc", "a_b.mrc"], ["."], "would both be called a_b"),
        (["a.mrc", "a.mrc.gz"], ["."], "would both be called a"),
    ],
)
def test_discovery_says_what_is_wrong(tmp_path, monkeypatch, names, inputs, message):
    touched(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        discover(inputs)


def test_a_bad_pattern_is_named(tmp_path):
    touched(tmp_path, "a.mrc")
    with pytest.raises(RequestError, match=r"session\.tomogram_name_remove: '\(' is no regular"):
        discover([str(tmp_path)], name_remove=["("])


# What lies among tomograms and is none


AMONG = {
    "a mask that the recipe names": (
        ["TS_01.mrc", "TS_01_x.mrc"], ["{folder}/{name}_x.mrc"], ["TS_01.mrc"],
        "TS_01_x.mrc (it belongs to TS_01, as the recipe says)",
    ),
    "one mask for all": (
        ["TS_01.mrc", "TS_02.mrc", "inside.mrc"], ["{folder}/inside.mrc"],
        ["TS_01.mrc", "TS_02.mrc"], "inside.mrc (it belongs to TS_0",
    ),
    "a mask by its name": (
        ["TS_01.mrc", "TS_01_Mask.tif"], [], ["TS_01.mrc"],
        "TS_01_Mask.tif (a mask or labels of TS_01)",
    ),
    "labels and masks as they are exported here": (
        ["TS_01.mrc", "TS_01__labels.mrc", "TS_01__actin.zarr/zarr.json"], [], ["TS_01.mrc"],
        "TS_01__actin.zarr (a mask or labels of TS_01), TS_01__labels.mrc",
    ),
    "labels of a tomogram with a longer file name": (
        ["rec_TS_01.mrc", "TS_01__labels.mrc"], [], ["rec_TS_01.mrc"], "TS_01__labels.mrc",
    ),
    "tilt series of IMOD": (
        ["TS_02.st", "TS_02_ali.mrc", "TS_02_rec.mrc"], [], ["TS_02_rec.mrc"],
        "TS_02.st (a tilt series), TS_02_ali.mrc (a tilt series)",
    ),
    "particles": (["a.mrcs", "a.mrc"], [], ["a.mrc"], "a.mrcs (a tilt series)"),
    "masks of other programs": (
        ["a.mrc", "a_MemBrain_seg_v10.ckpt_segmented.mrc", "a_semantic.mrc"], [], ["a.mrc"],
        "a_MemBrain_seg_v10.ckpt_segmented.mrc (a mask or labels of a)",
    ),
    "a half map beside a tilt series alone": (
        ["a.st", "a_EVN.mrc"], [], ["a_EVN.mrc"], "a.st (a tilt series)",
    ),
    "half maps": (
        ["a.mrc", "a_EVN.mrc", "a_odd.mrc", "b_half1.mrc"], [], ["a.mrc", "b_half1.mrc"],
        "a_EVN.mrc (a half map of a), a_odd.mrc (a half map of a)",
    ),
    "half maps, compressed, named in the middle": (
        ["a_Vol.mrc.gz", "a_EVN_Vol.mrc.gz"], [], ["a_Vol.mrc.gz"], "a half map of a_Vol",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("names", "companions", "left", "said"), AMONG.values(), ids=AMONG.keys())
def test_what_is_no_tomogram_is_left_out_and_told(tmp_path, caplog, names, companions, left, said):
    touched(tmp_path, *names)
    assert found_in(tmp_path, companions=companions, name_remove=["^rec_"]) == left
    assert said in caplog.messages[0]
    assert "name the file itself in session.input" in caplog.messages[0]


@pytest.mark.parametrize(
    "names",
    [
        ["TS_01_mask.mrc"],
        ["TS_01__labels.mrc", "TS_02.mrc"],
        ["TS_01_EVN.mrc", "TS_01_ODD.mrc"],
        ["cell_scores.mrc", "cellar.mrc"],
    ],
)
def test_without_their_tomogram_they_are_processed_and_told(tmp_path, caplog, names):
    touched(tmp_path, *names)
    assert found_in(tmp_path) == names
    (line,) = caplog.messages
    assert line.startswith(f"processed as tomograms: {names[0]} (it looks like ")


@pytest.mark.parametrize("name", ["ODDITY_01.mrc", "even_more.mrc", "labels_01.mrc", "maskot.mrc"])
def test_a_name_that_only_begins_alike_is_a_tomogrames(tmp_path, caplog, name):
    touched(tmp_path, name, "01.mrc", "more.mrc")
    kept = {"even_more.mrc": "more.mrc"}
    assert (name in found_in(tmp_path)) == (name not in kept)


def test_a_file_named_itself_is_always_taken_and_told(tmp_path, caplog):
    touched(tmp_path, "TS_01.mrc", "TS_01_mask.mrc", "TS_02.st")
    inputs = [str(tmp_path), str(tmp_path / "TS_01_mask.mrc"), str(tmp_path / "TS_02.st")]
    names = [one.name for one in discover(inputs, companions=["{folder}/{name}_mask.mrc"])]
    assert names == ["TS_01", "TS_01_mask", "TS_02"]
    (line,) = caplog.messages
    assert line.startswith("processed as tomograms: TS_01_mask.mrc (it looks like a mask")


def test_a_folder_of_nothing_else_says_what_it_has(tmp_path):
    touched(tmp_path, "TS_01.st", "TS_02.st")
    said = r"no tomogram in .*; 2 files left out: TS_01\.st \(a tilt ser"
    with pytest.raises(RequestError, match=said):
        discover([str(tmp_path)])


@pytest.mark.parametrize(
    ("beside", "content"),
    [
        ("TS_01.rawtlt", "-3\n0\n3\n"),
        ("TS_01.tlt", " -3.0\n 0.0\n 3.0\n"),
        ("TS_01.mrc.mdoc", "[ZValue = 0]\n[ZValue = 1]\n[ZValue = 2]\n"),
        ("TS_01.mdoc", "[ZValue = 0]\n[ZValue = 1]\n[ZValue = 2]\n"),
    ],
)
@pytest.mark.parametrize("sections", [3, 5])
def test_a_file_of_as_many_sections_as_tilts_is_a_tilt_series(
    tmp_path, caplog, beside, content, sections
):
    for name, depth in (("TS_01.mrc", sections), ("TS_01_rec.mrc", 8)):
        with mrcfile.new(tmp_path / name, np.zeros((depth, 4, 5), np.int16)):
            pass
    (tmp_path / beside).write_text(content)
    is_tilt_series = sections == 3
    assert ("TS_01.mrc" not in found_in(tmp_path)) == is_tilt_series
    told = [line for line in caplog.messages if "as many sections as tilts" in line]
    assert bool(told) == is_tilt_series


def test_many_that_are_left_out_are_one_line(tmp_path, caplog):
    touched(tmp_path, "a.mrc", *(f"{n:02}.st" for n in range(40)))
    discover([str(tmp_path)])
    (line,) = caplog.messages
    assert line.startswith("40 files left out: 00.st (")
    assert " and 34 more; " in line


def test_a_folder_is_asked_once_about_thousands(tmp_path):
    names = [f"TS_{n:04}{end}" for n in range(1500) for end in (".mrc", "_mask.mrc")]
    touched(tmp_path, *names)
    entries = listing(f"file://{tmp_path}")
    among = tomograms_among(entries, companions=["{folder}/{name}_mask.mrc"])
    assert len(among.tomograms) == len(among.left_out) == 1500


def test_hidden_files_broken_links_and_folders_are_no_tomograms(tmp_path):
    touched(tmp_path, "a.mrc", ".b.mrc", "c.mrc/inside")
    os.symlink(tmp_path / "a.mrc", tmp_path / "link.mrc")
    os.symlink(tmp_path / "gone.mrc", tmp_path / "broken.mrc")
    assert found_in(tmp_path)[:1] == ["a.mrc"]
    assert "c.mrc" not in found_in(tmp_path)
    assert "link.mrc" in found_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "is_left"),
    [
        ("TS_01_mask.mrc", True),
        ("TS_01__labels.mrc", True),
        ("TS_01_Seg.mrc.gz", True),
        ("TS_01_lamella.mrc", True),
        ("TS_01.mrc", False),
        ("TS_01_EVN.mrc", False),
        ("maskot.mrc", False),
    ],
)
def test_a_mask_that_comes_first_waits_for_its_tomogram(tmp_path, name, is_left):
    touched(tmp_path, name)
    entries, options = (
        listing(f"file://{tmp_path}"),
        {"companions": ["{folder}/{name}_lamella.mrc"]},
    )
    among = tomograms_among(entries, is_arriving=True, **options)
    assert (len(among.left_out), len(among.tomograms)) == ((1, 0) if is_left else (0, 1))


@pytest.mark.parametrize("pattern", ["{folder}/{name}.mrc", "{folder}/masks/{name}.mrc"])
def test_a_pattern_that_fits_the_tomogram_itself_leaves_out_nothing(tmp_path, pattern):
    touched(tmp_path, "rec_TS_01.mrc", "TS_02.mrc")
    options = {"companions": [pattern], "name_remove": ["^rec_"]}
    assert found_in(tmp_path, **options) == ["rec_TS_01.mrc", "TS_02.mrc"]


def test_what_the_recipe_calls_a_mask_is_none_without_its_tomogram_either(tmp_path, caplog):
    touched(tmp_path, "TS_01.mrc", "TS_02_x.mrc")
    assert found_in(tmp_path, companions=["{folder}/{name}_x.mrc"]) == ["TS_01.mrc"]
    assert "TS_02_x.mrc (it belongs to TS_02, as the recipe says)" in caplog.text


def test_no_tomogram_among_nothing():
    assert tomograms_among({}) == Among(())


# Patterns


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("TS_*.mrc", ["TS_01", "TS_02"]),
        ("TS_0?.mrc", ["TS_01", "TS_02"]),
        ("TS_0[2-9].mrc", ["TS_02"]),
        ("*", ["TS_01", "TS_02", "other"]),
        ("d*r/*.rec", ["TS_03"]),
        ("d*r", ["TS_03"]),
        ("**/*.rec", ["TS_03"]),
    ],
)
def test_patterns_stand_for_what_matches(folder, pattern, names):
    for name in ("TS_01.mrc", "TS_02.mrc", "other.mrc", "deeper/TS_03.rec", "TS_01.st", "a.txt"):
        folder.write(f"s/{name}", b"")
    assert [one.name for one in discover([f"{folder.url}/s/{pattern}"])] == names


def test_a_pattern_leaves_out_what_belongs_to_what_it_matches(tmp_path, caplog):
    touched(tmp_path, "TS_01.mrc", "TS_01_mask.mrc", "TS_02_EVN.mrc", "TS_02.mrc")
    assert [one.name for one in discover([f"{tmp_path}/TS_01*"])] == ["TS_01"]
    assert [one.name for one in discover([f"{tmp_path}/*_EVN.mrc"])] == ["TS_02_EVN"]


@pytest.mark.parametrize("pattern", ["TS_9*.mrc", "*.txt", "none/*"])
def test_a_pattern_that_matches_nothing_is_named(tmp_path, pattern):
    touched(tmp_path, "TS_01.mrc", "a.txt")
    with pytest.raises(RequestError, match=r"nothing that is a tomogram matches .*Correct session"):
        discover([f"{tmp_path}/{pattern}"])


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tmp_path):
    touched(tmp_path, "TS_[1].mrc", "TS_1.mrc")
    assert [one.name for one in discover([f"{tmp_path}/TS_[1].mrc"])] == ["TS_[1]"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.nii.gz", "NIfTI, which is not read. Convert it to MRC"),
        ("a.npy", "a NumPy array"),
        ("a.hdf", "HDF5 or N5, which is not read.*e2proc3d"),
        ("a.dm4", "DigitalMicrograph.*dm2mrc"),
        ("a.czi", "Fiji"),
        ("a.eer", "movie frames"),
        ("a.ali", "a tilt series"),
        ("a.jpg", "a JPEG image"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_names(tmp_path, name, says):
    touched(tmp_path, name)
    with pytest.raises(RequestError, match=says):
        discover([str(tmp_path / name)])


def test_what_lies_in_a_zarr_is_named_after_it(tmp_path):
    touched(tmp_path, "a.zarr/0/zarr.json")
    assert discover([f"{tmp_path}/a.zarr/0"]) == [Found("a", f"file://{tmp_path}/a.zarr/0")]
