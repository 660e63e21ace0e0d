"""The layout of an output: the names of all that lies in one, here alone.

::

    OUTPUT/
      index.html            the session's page
      session.json          what became of each tomogram
      recipe.yaml           the recipe that was used, to be used again
      session/              points of all tomograms together
      imported/             points and masks of other programs
      .tomoseg/             who is at work, what looks saw and runs did, attempts, exports
      TOMOGRAM/
        manifest.json       provenance; it is written last
        tomogram.zarr/      the image, its pyramid, labels/, and work/ between stages
        masks/ filaments/ particles/ membranes/ meshes/
        report/             pictures and numbers
        previous/           results of earlier settings, where they are kept
        .tomoseg/           receipts and records of stages, progress, the page's thumbnail
"""

PAGE, SESSION, RECIPE = "index.html", "session.json", "recipe.yaml"
TOGETHER, IMPORTED = "session", "imported"
MANIFEST, IMAGE, PREVIOUS = "manifest.json", "tomogram.zarr", "previous"
WORK = "work"
OVERVIEW = "report/overview.png"
RECORDS = ".tomoseg"
PROGRESS, THUMBNAIL = f"{RECORDS}/progress.json", f"{RECORDS}/thumbnail.jpg"
ATTEMPTS, ARRIVALS, WATCHES = (
    f"{RECORDS}/attempts.json",
    f"{RECORDS}/arrivals",
    f"{RECORDS}/watches",
)
EXPORTS, WRITTEN = f"{RECORDS}/exports.json", f"{RECORDS}/together.json"
"""What was written into an output for other programs, so that it can be taken away again."""
