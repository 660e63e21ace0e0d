from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
# How many pictures each draws; a notebook without a number fails the test.
PICTURES = {"augmentation": 15, "filaments": 7}


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_every_notebook_says_how_many_pictures_it_draws():
    assert NOTEBOOKS.keys() == PICTURES.keys()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_stripped(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    assert not outputs(notebook)
    assert not any(cell.get("execution_count") for cell in notebook.cells)


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
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[name]
    assert all(len(picture.data["image/png"]) > 10_000 for picture in pictures)
