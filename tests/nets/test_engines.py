"""What computes a network's passes: an engine that is none is refused."""

import pytest

from tomoseg.core.errors import RequestError
from tomoseg.nets.engines import check_engine


@pytest.mark.parametrize("engine", ["onnx", "compiled"])
def test_an_engine_that_is_none_is_refused(engine):
    with pytest.raises(RequestError, match=f"engine '{engine}' is none of .'torch', 'int8'"):
        check_engine(engine)
