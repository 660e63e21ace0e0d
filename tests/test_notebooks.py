import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
# How many pictures each draws; a notebook without a number fails the test.
PICTURES = {"augmentation": 15, "filaments": 7}
# Charts of lines cover a tenth of their paper and more.
LEAST_DRAWN = 0.08


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_every_notebook_says_how_many_pictures_it_draws():
    assert NOTEBOOKS.keys() == PICTURES.keys()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_stripped(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    assert not outputs(notebook)
    assert not any(cell.get("execution_count") for cell in notebook.cells)


def opened(data):
    """The pixels of a picture as a notebook holds it."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGB"))


def drawn_share(pixels):
    """The share of a picture that is not of its commonest colour, the paper."""
    _, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return 1 - counts.max() / counts.sum()


def test_axes_without_anything_in_them_are_no_picture():
    figure = Figure(figsize=(10, 4))
    for axes in figure.subplots(1, 2):
        axes.set(title="length", xlabel="nm", ylabel="number")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert 0 < drawn_share(opened(base64.b64encode(file.getvalue()))) < LEAST_DRAWN / 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs_and_the_pictures_come_out(name, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    NotebookClient(
        notebook,
        timeout=100,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    kinds = [output.output_type for output in outputs(notebook)]
    assert "stream" not in kinds  # warnings of a kernel are only printed
    found = [output.get("data", {}).get("image/png") for output in outputs(notebook)]
    pictures = [opened(data) for data in found if data]
    assert len(pictures) == PICTURES[name]
    assert all(drawn_share(picture) > LEAST_DRAWN for picture in pictures)
