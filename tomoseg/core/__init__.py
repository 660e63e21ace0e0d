"""What every room stands on: grids, blocks, coordinates, errors, events; numpy and pydantic."""
