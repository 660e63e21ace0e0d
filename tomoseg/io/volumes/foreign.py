"""Files of kinds that are not read, called by their names: what they are, and the way out."""

from __future__ import annotations

from pathlib import PurePosixPath

_FIJI = "Open it in Fiji (Bio-Formats) and save it as an uncompressed TIFF stack"
_MRC = "Convert it to MRC with the right voxel size"
_NIBABEL = f"{_MRC}: nibabel reads it, mrcfile writes MRC"
_NUMPY = f"{_MRC}: numpy.load reads it, mrcfile writes MRC"
_HDF = f"{_MRC}: of EMAN2, e2proc3d.py FILE.hdf FILE.mrc"
_DM = f"{_MRC}: of IMOD, dm2mrc FILE.dm4 FILE.mrc"
_FRAMES = "Reconstruct a tomogram of it first"
_UNPACK = "Unpack it"
_COPY = "Copy the tomogram itself"

_HDF5, _NIFTI, _NPY, _JPEG = "HDF5", "NIfTI", "a NumPy array", "a JPEG image"
_BY_SUFFIX = {
    **dict.fromkeys((".nii", ".hdr"), (_NIFTI, _NIBABEL)),
    ".npy": (_NPY, _NUMPY),
    ".npz": ("NumPy arrays", _NUMPY),
    **dict.fromkeys((".hdf", ".h5", ".hdf5", ".n5"), ("HDF5 or N5", _HDF)),
    ".ims": ("an Imaris volume", _FIJI),
    **dict.fromkeys((".czi", ".lif", ".lsm", ".nd2"), ("a light microscope's file", _FIJI)),
    **dict.fromkeys((".dm3", ".dm4"), ("DigitalMicrograph", _DM)),
    **dict.fromkeys((".ser", ".emi", ".emd"), ("a file of TIA or Velox", _FIJI)),
    ".eer": ("movie frames (EER)", _FRAMES),
    **dict.fromkeys((".ali", ".preali"), ("a tilt series (IMOD)", _FRAMES)),
    ".mdoc": ("a tilt series' metadata", "Give the tomogram"),
    **dict.fromkeys((".spi", ".img", ".hed"), ("SPIDER or IMAGIC", f"{_MRC}: of EMAN2, e2proc3d")),
    ".ccp4": ("a map as MRC has it", "Rename it to .mrc"),
    ".raw": ("numbers without a header", f"{_MRC}: of IMOD, raw2mrc"),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd", ".vti", ".vtk"), ("a volume", _FIJI)),
    **dict.fromkeys((".jpg", ".jpeg"), (_JPEG, "Save it as PNG or TIFF, in grey")),
    **dict.fromkeys((".bmp", ".gif", ".webp"), ("an image", "Save it as PNG or TIFF, in grey")),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".xz", ".zst"), ("an archive", _UNPACK)),
    **dict.fromkeys(
        (".star", ".tbl", ".mod", ".csv", ".ndjson"), ("a table", "Use tomoseg import")
    ),
}
_BY_CONTENT = {
    b"\x89HDF": (_HDF5, _HDF),
    b"\x93NUMPY": (_NPY, _NUMPY),
    b"\x5c\x01\x00\x00": (_NIFTI, _NIBABEL),  # 348, the length of its header
    b"\x00\x00\x01\x5c": (_NIFTI, _NIBABEL),
    b"\x00\x00\x00\x03\x00\x00": ("DigitalMicrograph 3", _DM),
    b"\x00\x00\x00\x04\x00\x00": ("DigitalMicrograph 4", _DM),
    b"II*\x00": ("TIFF", "Rename it to .tif"),
    b"MM\x00*": ("TIFF", "Rename it to .tif"),
    b"II+\x00": ("TIFF", "Rename it to .tif"),
    b"\x89PNG": ("PNG", "Rename it to .png"),
    b"\xff\xd8\xff": (_JPEG, "Save it as PNG or TIFF, in grey"),
    b"# AmiraMesh": ("AmiraMesh", "Rename it to .am"),
    b"# Avizo": ("AmiraMesh", "Rename it to .am"),
    b"PK\x03\x04": ("a ZIP archive", _UNPACK),
    b"\xfd7zXZ": ("packed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"\x1f\x8b": ("compressed, whatever its name says", "Decompress it"),
    b"BZh": ("compressed, whatever its name says", "Decompress it"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", _COPY),
    b"<!DOCTYPE": ("a web page, saved in its place", _COPY),
    b"<html": ("a web page, saved in its place", _COPY),
}


def kind_by_name(name: str) -> tuple[str, str] | None:
    """Return what a file of this name is, and what to do with it; None if that is not known."""
    place = PurePosixPath(name.lower())
    plain = PurePosixPath(place.stem) if place.suffix in (".gz", ".bz2") else place
    return _BY_SUFFIX.get(plain.suffix)


def kind_by_content(begin: bytes) -> tuple[str, str] | None:
    """Return what a file that begins so is, and what to do with it; None if that is not known."""
    return next((kind for magic, kind in _BY_CONTENT.items() if begin.startswith(magic)), None)
