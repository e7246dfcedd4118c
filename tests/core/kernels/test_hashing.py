"""Codes of labels, in order of appearance. Runs compiled and as plain Python."""

from __future__ import annotations

import numpy as np

from labeltrack._core.kernels import hashing as kernels


def test_codes_are_given_in_order_of_appearance_and_stop_when_full():
    labels = np.array([7, -1, 7, 2**62, -1, 5], dtype=np.int64)  # -1, which empty places hold, too
    table, found, size = np.full(16, -1, dtype=np.int64), np.empty(3, dtype=np.int64), np.zeros(1, dtype=np.int64)
    codes = np.empty(6, dtype=np.int32)
    assert (kernels.encode_int64(labels, 0, 6, table, found, size, False, codes), size[0]) == (5, 3)
    assert codes[:5].tolist() == [0, 1, 0, 2, 1]
    assert found.tolist() == [7, -1, 2**62]
    position = kernels.encode_int64(labels, 5, 6, table, found, size, True, codes)
    assert (position, size[0], codes[0]) == (6, 3, 3)


def test_colliding_labels_are_told_apart():
    # A table of four places and two codes: some of these labels must share a place.
    for other in range(1, 40):
        table, found = np.full(8, -1, dtype=np.int64), np.empty(2, dtype=np.int64)
        codes = np.empty(4, dtype=np.int32)
        labels = np.array([0, other, 0, other], dtype=np.int64)
        kernels.encode_int64(labels, 0, 4, table, found, np.zeros(1, dtype=np.int64), False, codes)
        assert codes.tolist() == [0, 1, 0, 1]


def test_labels_of_a_table_beyond_the_cache_get_the_same_codes():
    labels = np.random.default_rng(5).integers(-(2**62), 2**62, 40)
    labels = np.concatenate([labels, labels[::-1]])
    codes = []
    for words in (256, 2 * kernels._FAR_KEYS):
        table, found = np.full(words, -1, dtype=np.int64), np.empty(64, dtype=np.int64)
        codes.append(np.empty(80, dtype=np.int32))
        size = np.zeros(1, dtype=np.int64)
        assert (kernels.encode_int64(labels, 0, 80, table, found, size, False, codes[-1]), size[0]) == (80, 40)
        assert found[:40].tolist() == labels[:40].tolist()
    assert codes[0].tolist() == codes[1].tolist() == [*range(40), *range(39, -1, -1)]
