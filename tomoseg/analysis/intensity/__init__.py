"""Grey values as a network expects them.

A network sees grey values as it was trained on them: its card carries a list of steps, and the
same list is repeated here. Law 1 asks that a voxel's result does not depend on its block, so that
every number that a step needs is derived from the statistics of the whole tomogram, once. Voxels
that are empty or outside its mask do not count in these:

    pass 1   moments(block)            merged in order   count, extremes, mean, spread
    pass 2   histogram(block, bins)    added up          exact for integers of up to 16 bits
    then     prepare(steps, Statistics.of(moments, bins, counts)) → Normaliser, a few numbers
    a task   normaliser.apply(block, sampling)
"""

from tomoseg.analysis.intensity.contrast import (
    Contrast,
    contrast_notes,
    detail_skewness,
    measured_contrast,
)
from tomoseg.analysis.intensity.empty import Specimen, empty_voxels, may_be_empty, read_filled
from tomoseg.analysis.intensity.normaliser import (
    ClipScale,
    Curve,
    Normaliser,
    contrast_sign,
    prepare,
)
from tomoseg.analysis.intensity.signs import looks_wrapped, spreads
from tomoseg.analysis.intensity.statistics import (
    Bins,
    Moments,
    Statistics,
    check_moments,
    histogram,
    is_counted,
    merge_moments,
    moments,
    value_counts,
)
from tomoseg.analysis.intensity.steps import (
    DEFAULT_STEPS,
    Calibrate,
    Equalise,
    Gaussian,
    Invert,
    PercentileClip,
    Step,
    Unsharp,
    ZScore,
    as_dicts,
    parse_steps,
)
from tomoseg.analysis.intensity.uniform import uniform_voxels

__all__ = [
    "DEFAULT_STEPS",
    "Bins",
    "Calibrate",
    "ClipScale",
    "Contrast",
    "Curve",
    "Equalise",
    "Gaussian",
    "Invert",
    "Moments",
    "Normaliser",
    "PercentileClip",
    "Specimen",
    "Statistics",
    "Step",
    "Unsharp",
    "ZScore",
    "as_dicts",
    "check_moments",
    "contrast_notes",
    "contrast_sign",
    "detail_skewness",
    "empty_voxels",
    "histogram",
    "is_counted",
    "looks_wrapped",
    "may_be_empty",
    "measured_contrast",
    "merge_moments",
    "moments",
    "parse_steps",
    "prepare",
    "read_filled",
    "spreads",
    "uniform_voxels",
    "value_counts",
]
