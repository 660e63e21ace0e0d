"""Where blocks run, and what is told of it: the only room that imports Dask."""
