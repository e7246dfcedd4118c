"""Columns of samples that a mask selects, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack._core.masks import selected


@pytest.mark.parametrize("threads", [1, 2, 5, None])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_selected_columns_are_those_of_numpy(threads, share):
    rng = np.random.default_rng(0)
    mask = rng.random(5003) < share
    columns = [rng.integers(0, 99, 5003).astype(dtype) for dtype in ("u1", "i4", "i8")]
    columns += [rng.normal(size=5003).astype(dtype) for dtype in ("f4", "f8")]
    for got, column in zip(selected(mask, *columns, threads=threads), columns, strict=True):
        assert got.dtype == column.dtype
        assert got.tobytes() == column[mask].tobytes()


def test_bits_of_nan_stay():
    column = np.array([0x7F800001, 0xFFC00123, 0], dtype=np.uint32).view(np.float32)
    mask = np.array([True, True, False])
    assert selected(mask, column)[0].view(np.uint32).tolist() == [0x7F800001, 0xFFC00123]
