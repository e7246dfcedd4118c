"""`label_stats`: exact on every type of values and labels, and independent of everything that must not matter."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from exact import expected, expected_by_label, fingerprint, hard_cases, rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import labeltrack as lt

CASES = hard_cases()


@pytest.mark.parametrize("name", CASES)
def test_every_hard_case_is_exact(name):
    values = CASES[name]
    exact = values.astype(np.float64) if values.dtype.kind in "biu" else values  # integers are reduced as float64
    assert rows(lt.label_stats(np.zeros(values.size, dtype=int), values)) == {0: expected(exact)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_hard_case_is_the_same_for_any_order_and_threads(name, threads):
    values = CASES[name]
    labels = np.arange(values.size) % 3
    wanted = fingerprint(lt.label_stats(labels, values))
    order = np.random.default_rng(threads).permutation(values.size)
    assert fingerprint(lt.label_stats(labels[order], values[order], threads=threads)) == wanted


value_arrays = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 40),
        elements={"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else None,
    )
)


@given(value_arrays, st.data())
def test_values_of_every_type_are_exact(values, data):
    labels = data.draw(hnp.arrays(np.int32, values.shape, elements=st.integers(-2, 2)))
    exact = values.astype(np.float64)
    wanted = expected_by_label(labels.tolist(), exact)
    order = np.array(data.draw(st.permutations(range(values.size))))
    assert rows(lt.label_stats(labels, values)) == wanted
    assert rows(lt.label_stats(labels[order], values[order], threads=data.draw(st.integers(1, 4)))) == wanted


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?", "U5", "S5"])
def test_labels_of_every_type_are_grouped(dtype):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 200).astype(dtype)
    values = rng.normal(size=200)
    stats = lt.label_stats(labels, values)
    assert rows(stats) == expected_by_label(labels.tolist(), values)
    assert stats.labels.tolist() == sorted(set(labels.tolist()))


@pytest.mark.parametrize(
    "labels", [["dog", "cat", "dog"], ("dog", "cat", "dog"), np.array(["dog", "cat", "dog"], dtype=object)]
)
def test_lists_of_strings_are_grouped(labels):
    assert rows(lt.label_stats(labels, [1, 2, 4])) == expected_by_label(["dog", "cat", "dog"], [1, 2, 4])


def test_negative_and_huge_integers_are_grouped():
    labels = [-(2**63), 2**63 - 1, -1, -(2**63)]
    assert rows(lt.label_stats(labels, [1, 2, 4, 8])) == expected_by_label(labels, [1, 2, 4, 8])
    unsigned = np.array([2**64 - 1, 0, 2**64 - 1], dtype=np.uint64)
    assert rows(lt.label_stats(unsigned, [1, 2, 4])) == expected_by_label(unsigned.tolist(), [1, 2, 4])


def test_maps_of_pixels_are_raveled_in_any_layout():
    rng = np.random.default_rng(4)
    labels, values = rng.integers(0, 4, (3, 5, 7)), rng.normal(size=(3, 5, 7))
    wanted = expected_by_label(labels.ravel().tolist(), values.ravel())
    assert rows(lt.label_stats(labels, values)) == wanted
    assert rows(lt.label_stats(labels.transpose(2, 0, 1), values.transpose(2, 0, 1))) == wanted
    assert rows(lt.label_stats(labels[::-1, :, ::2], values[::-1, :, ::2])) == expected_by_label(
        labels[::-1, :, ::2].ravel().tolist(), values[::-1, :, ::2].ravel()
    )


def test_no_samples_give_no_rows():
    stats = lt.label_stats([], [])
    assert len(stats) == 0
    assert stats.mean.size == 0


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("quantiles", [(), (0.5,)])
@pytest.mark.parametrize("dtype", ["i8", "u1", "u8", "?", "f4", "f8", "U3", "U1", "S5", "S8", "O"])
def test_no_samples_of_any_label_type_give_no_rows(dtype, quantiles, threads):
    labels, values = np.array([], dtype=dtype), np.array([], dtype=np.float32)
    some = {"x": "x" if dtype[0] in "US" else 1}
    for mapping in (None, some):
        for more in ({}, {"where": np.array([], dtype=bool)}):
            stats = lt.label_stats(
                labels, values, label_mapping=mapping, quantiles=quantiles, threads=threads, missing="skip", **more
            )
            assert len(stats) == 0
            assert stats.quantiles == quantiles


# -- mappings ---------------------------------------------------------------------------------------------


def test_a_mapping_keeps_names_and_drops_the_rest():
    stats = lt.label_stats([5, 3, 5, 9], [1, 2, 4, 8], label_mapping={"five": 5, "three": 3, "never": 77})
    assert stats.names.tolist() == ["three", "five"]
    assert rows(stats) == expected_by_label([5, 3, 5], [1, 2, 4])


def test_a_mapping_of_strings_works_the_same():
    stats = lt.label_stats(["a", "b", "c", "a"], [1, 2, 4, 8], label_mapping={"Anna": "a", "Carl": "c"})
    assert stats.names.tolist() == ["Anna", "Carl"]
    assert stats["Anna"].sum == 9.0


def test_labels_that_a_mapping_drops_do_not_reach_the_policy():
    stats = lt.label_stats([0, 1], [1.0, math.nan], label_mapping={"zero": 0}, nan_policy="raise")
    assert stats["zero"].mean == 1.0


def test_a_mapping_of_which_nothing_occurs_warns_and_says_what_did_occur():
    with pytest.warns(lt.LabelTrackWarning, match=r"it maps '0', but the labels that occurred are 0, 1") as caught:
        assert len(lt.label_stats([0, 1], [1, 2], label_mapping={"zero": "0"})) == 0
    assert caught[0].filename == __file__


def test_a_mapping_of_no_samples_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(lt.label_stats([], [], label_mapping={"a": 1})) == 0


# -- options ----------------------------------------------------------------------------------------------


def test_an_unknown_policy_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="nan_policy: unknown option 'ignore'; allowed are 'propagate', 'omit', 'raise'"
    ):
        lt.label_stats([0], [1], nan_policy="ignore")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_threads_must_be_a_positive_integer(threads):
    with pytest.raises(ValueError, match="threads must be a positive integer or None"):
        lt.label_stats([0], [1], threads=threads)


def test_labels_of_a_type_without_order_are_refused():
    with pytest.raises(TypeError, match="labels must be integers, bools, floats or strings, got dtype complex128"):
        lt.label_stats(np.array([1j]), [1])


def test_inputs_are_left_as_they_were():
    labels, values = np.array([1, 0, 1]), np.array([1.0, -0.0, 3.0])
    labels.flags.writeable = values.flags.writeable = False
    lt.label_stats(labels, values)
    assert labels.tolist() == [1, 0, 1]


def test_zeros_at_the_end_of_a_mapped_string_match_nothing_however_many_samples_there_are():
    for times in (1, 20_000):
        stats = lt.label_stats(["a", "b"] * times, [1.0, 2.0] * times, label_mapping={"A": "a\0", "B": "b"})
        assert stats.labels.tolist() == ["b"]


@pytest.mark.parametrize("samples", [16, 40_000])
@pytest.mark.parametrize(("dtype", "bits"), [("f2", 0x7C01), ("f4", 0x7F800001), ("f8", 0x7FF0000000000001)])
def test_signalling_nans_are_nans_without_a_warning(dtype, bits, samples):
    values = (np.arange(samples) % 7).astype(dtype)
    numbers = np.arange(samples) % 8 != 0
    values.view(dtype.replace("f", "u"))[~numbers] = bits
    labels = np.zeros(samples, dtype=int)
    stats = lt.label_stats(labels, values, nan_policy="omit", quantiles=[0.25])
    assert rows(stats) == {0: expected(values[numbers])}
    assert stats.quantile(0.25).tolist() == [np.quantile(values[numbers].astype(np.float64), 0.25)]
    mixed = lt.LabelTracker("y", "ce", bounds="iqr", nan_policy="omit")
    batches = [(labels, values), ([0], [3.0])]
    for epoch, order in enumerate([batches, batches[::-1]]):  # a batch of doubles widens the columns
        for batch in order:
            mixed.update(*batch)
        assert mixed.end_epoch(epoch).count.tolist() == [numbers.sum() + 1]


# -- multi-hot labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i8", "u1", "?", "f4"])
def test_labels_that_look_multi_hot_warn_with_what_groups_by_column(dtype):
    rng = np.random.default_rng(5)
    labels, values = (rng.random((8, 3)) < 0.3).astype(dtype), rng.normal(size=(8, 3))
    with pytest.warns(lt.LabelTrackWarning, match="multi-hot.*column for each class") as caught:
        lt.label_stats(labels, values)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    way = str(caught[0].message).split("instead: ")[1].split(". If")[0]
    stats = eval(way, {"label_stats": lt.label_stats, "np": np, "labels": labels, "values": values})  # noqa: S307
    assert rows(stats) == {c: expected(values[:, c]) for c in range(3)}


def test_tables_of_other_labels_and_maps_of_pixels_do_not_warn():
    rng = np.random.default_rng(6)
    flags = rng.integers(0, 2, (4, 3, 5))
    cases = [
        flags,
        flags[:, :1, 0],
        flags[:1, :, 0],
        flags[0] * 2,
        flags[0] * 0,
        flags[0] | 1,
        flags[0] - 1,
        flags[0] + 0.5,
    ]
    for labels in cases:
        lt.label_stats(labels, np.ones(labels.shape))
    lt.label_stats(flags[0], np.ones((3, 5)), label_mapping={"background": 0, "object": 1})
    lt.label_stats(flags[0].astype(str), np.ones((3, 5)))
