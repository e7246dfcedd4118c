"""Tensors in: every kind of array-like, and the mistakes people make."""

from __future__ import annotations

import array
import os

import numpy as np
import pytest
from exact import expected_by_label, rows

import labeltrack as lt
from labeltrack._convert.arrays import flat_pair, to_numpy, to_values

EVERYTHING = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"


def framework(name):
    """Import a framework; where all are required, a missing one is a failure and not a skipped test."""
    if EVERYTHING:
        return __import__(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")


def test_a_numpy_array_comes_back_as_itself():
    data = np.arange(3)
    assert to_numpy(data, "labels") is data


@pytest.mark.parametrize("data", [[1, 2], (1, 2), range(1, 3), np.array([1, 2], dtype=">i4"), array.array("i", [1, 2])])
def test_lists_tuples_and_foreign_byte_orders_become_native_arrays(data):
    got = to_numpy(data, "labels")
    assert got.tolist() == [1, 2]
    assert got.dtype.isnative


def test_python_and_numpy_scalars_are_one_sample():
    assert lt.label_stats(3, 0.5)[3].mean == 0.5
    assert lt.label_stats(np.int64(3), np.float32(0.5))[3].mean == 0.5
    assert lt.label_stats("cat", 1)["cat"].count == 1


def test_objects_that_are_all_numbers_or_all_strings_are_taken():
    assert to_numpy(np.array([1, 2.5], dtype=object), "values").tolist() == [1.0, 2.5]
    assert to_numpy(np.array(["a", "bc"], dtype=object), "labels").tolist() == ["a", "bc"]
    assert to_numpy(np.array([b"a", b"bc"], dtype=object), "labels").tolist() == [b"a", b"bc"]


@pytest.mark.parametrize("data", [np.array([1, {}], dtype=object), [{"a"}], [object()]])
def test_other_objects_are_refused_by_the_names_of_their_types(data):
    with pytest.raises(TypeError, match="holds Python objects"):
        to_numpy(data, "labels")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, "a"], "labels mixes strings with int"),
        ([np.str_("a"), 1], "strings with int"),
        ([b"a", 1], "bytes with int"),
        (np.array(["a", 1], dtype=object), "strings with int"),
        ([["a", 1], ["b", 2]], "strings with int"),
        (["a", 1, None], "strings with int"),
    ],
)
def test_a_list_that_mixes_strings_and_numbers_is_refused(data, message):
    with pytest.raises(TypeError, match=message):
        to_numpy(data, "labels")


@pytest.mark.parametrize("data", [[2**63, -1], [2**64, 1]])
def test_a_list_of_integers_that_no_type_holds_is_refused_and_not_rounded(data):
    with pytest.raises(ValueError, match=r"64.bit"):
        to_numpy(data, "labels")


def test_a_ragged_list_is_refused():
    with pytest.raises(ValueError, match="items differ in length"):
        to_numpy([[1, 2], [3]], "values")


def test_a_masked_array_is_taken_only_without_masked_entries():
    data = np.ma.masked_array([1.0, 2.0], mask=[False, False])
    assert to_values(data).tolist() == [1.0, 2.0]
    data[0] = np.ma.masked
    with pytest.raises(ValueError, match="masked entries"):
        to_values(data)
    with pytest.raises(ValueError, match="1 of 2 labels are missing"):
        to_numpy(data, "labels")


def test_what_is_no_array_is_refused_with_what_would_do():
    with pytest.raises(TypeError, match=r"labels must be an array .* got builtins\.dict"):
        to_numpy({}, "labels")


def test_anything_with_the_array_protocol_is_taken():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3, dtype=dtype)

    assert to_numpy(Foreign(), "values").tolist() == [0, 1, 2]


def test_anything_with_dlpack_is_taken_without_a_copy():
    class Foreign:
        def __init__(self):
            self.data = np.arange(3.0)

        def __dlpack__(self, **kwargs):
            return self.data.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.data.__dlpack_device__()

    foreign = Foreign()
    assert np.shares_memory(to_numpy(foreign, "values"), foreign.data)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("?", "f8"), ("i1", "f8"), ("u8", "f8"), ("g", "f8")],
)
def test_values_are_reduced_in_the_promised_precision(given, kept):
    assert to_values(np.ones(2, dtype=given)).dtype == np.dtype(kept)


@pytest.mark.parametrize("dtype", ["c16", "U3", "M8[s]"])
def test_values_that_are_no_real_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match="values must be real numbers, got dtype"):
        to_values(np.zeros(2, dtype=dtype))


# -- shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "values"),
    [((4,), (4,)), ((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((2, 2), (2, 2)), ((2, 1, 2), (2, 1, 2))],
)
def test_shapes_that_belong_together_are_flattened(labels, values):
    a, b = flat_pair(np.arange(4).reshape(labels), np.arange(4.0).reshape(values))
    assert a.tolist() == [0, 1, 2, 3]
    assert b.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("single", [np.float64(0.7), np.array([0.7]), np.array([[0.7]])])
def test_an_averaged_metric_is_told_how_to_become_unreduced(single):
    with pytest.raises(ValueError, match=r'single metric value for 3 labels.*reduction="none".*average_loss=False'):
        lt.label_stats([0, 1, 2], single)


@pytest.mark.parametrize("values", [(3,), (3, 1)])
def test_one_hot_labels_are_told_to_become_indices(values):
    with pytest.raises(ValueError, match=r"look one-hot encoded; pass class indices.*argmax\(axis=1\)"):
        lt.label_stats(np.eye(3, 5), np.zeros(values))


def test_unequal_lengths_name_both_lengths():
    with pytest.raises(ValueError, match="3 labels, 2 values"):
        lt.label_stats([0, 1, 2], [0.5, 0.25])


def test_maps_of_different_shapes_name_both_shapes():
    with pytest.raises(ValueError, match=r"labels of shape \(2, 3, 4\) do not match values of shape \(2, 5, 4\)"):
        lt.label_stats(np.zeros((2, 3, 4), dtype=int), np.zeros((2, 5, 4)))


def test_swapped_axes_of_equal_size_are_not_taken_for_each_other():
    with pytest.raises(ValueError, match="do not match"):
        lt.label_stats(np.zeros((2, 3), dtype=int), np.zeros((3, 2)))


# -- frameworks -------------------------------------------------------------------------------------------

LABELS = [2, 0, 2, 1, 0, 2]
VALUES = [0.5, 0.25, 1.5, -3.0, 8.0, 0.125]
WANTED = expected_by_label(LABELS, VALUES)


def test_torch_tensors_are_converted_in_any_state():
    torch = framework("torch")
    labels, values = torch.tensor(LABELS), torch.tensor(VALUES, requires_grad=True)
    wide = torch.zeros(6, 2)
    wide[:, 1] = values.detach()
    for metric in (values, values * 1, values.double(), values.half(), values.bfloat16(), wide[:, 1], values[:, None]):
        assert rows(lt.label_stats(labels, metric)) == WANTED
    assert to_numpy(values, "values").dtype == np.float32
    assert np.shares_memory(to_numpy(values, "values"), values.detach().numpy())


def test_an_averaged_torch_loss_is_told_what_to_do():
    torch = framework("torch")
    loss = torch.nn.functional.cross_entropy(torch.zeros(6, 3, requires_grad=True), torch.tensor(LABELS))
    with pytest.raises(ValueError, match='reduction="none"'):
        lt.label_stats(torch.tensor(LABELS), loss)


def test_a_tensor_on_a_device_is_brought_to_the_cpu_once():
    # Stands in for a device that a machine for tests does not have; torch's own conversions are used on it above.
    class Tensor:
        __module__ = "torch.stand_in"
        dtype = None
        requires_grad = False
        moves = 0

        def __init__(self, where):
            self.is_cpu = where == "cpu"

        def detach(self):
            raise AssertionError

        def cpu(self):
            Tensor.moves += 1
            return Tensor("cpu")

        def numpy(self):
            assert self.is_cpu
            return np.array([0.5], dtype=np.float32)

    framework("torch")  # only to be found among the modules that are loaded
    assert to_numpy(Tensor("cuda"), "values").tolist() == [0.5]
    assert Tensor.moves == 1


def test_every_kind_of_torch_tensor_is_recorded_batch_after_batch():
    torch = framework("torch")
    labels = torch.tensor([2, 1, 2])
    tracker = lt.LabelTracker(label="y", metric="ce")
    batches = [
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([1.5, 2.5, 3.5]),
        torch.tensor([4.0, 5.0, 6.0], requires_grad=True),
        torch.tensor([[7.0], [8.0], [9.0]]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64),
        torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0])),
        torch.arange(6.0)[::2],
        torch.tensor([1, 2, 3]),
    ]
    for values in batches:
        tracker.update(labels, values)
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update(labels, torch.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="real numbers"):
        tracker.update(labels, torch.tensor([1j, 2j, 3j]))
    with pytest.raises(TypeError, match="labels are bfloat16"):
        tracker.update(torch.tensor([0.1, 2.0, 3.0], dtype=torch.bfloat16), labels)
    expected = np.concatenate([values.detach().to(torch.float64).numpy().reshape(-1) for values in batches])
    assert rows(tracker.end_epoch(1)) == expected_by_label(np.tile([2, 1, 2], len(batches)), expected)


@pytest.mark.parametrize("options", [{}, {"ids": [0, 1]}])
def test_one_tensor_for_several_labels_is_told_by_its_shape(options):
    torch = framework("torch")
    lt.label_stats(torch.tensor([0]), torch.tensor([1.0]))
    with pytest.raises(TypeError, match=r"or a tuple, got one array of shape \(2, 1\)"):
        lt.LabelTracker(("class", "site"), "ce").update(torch.zeros(2, 1), torch.zeros(2), **options)


def test_what_torch_calls_no_tensor_is_refused():
    torch = framework("torch")
    with pytest.raises(TypeError, match=r"values must be a torch.Tensor, got torch\.nn"):
        to_numpy(torch.nn.Linear(1, 1), "values")


@pytest.mark.parametrize("state", ["sparse", "on no device", "conjugate"])
def test_what_torch_does_not_make_an_array_of_is_named(state):
    torch = framework("torch")
    tensor = {
        "sparse": lambda: torch.tensor([1.0, 0.0]).to_sparse(),
        "on no device": lambda: torch.empty(2, device="meta"),
        "conjugate": lambda: torch.tensor([1j, 1j]).conj(),
    }[state]()
    with pytest.raises(TypeError, match=r"values: torch\.Tensor does not become a numpy array \(.*convert it first"):
        lt.label_stats([0, 1], tensor)


def test_tensorflow_eager_tensors_are_taken():
    tf = framework("tensorflow")
    for dtype in (tf.float32, tf.float64, tf.float16, tf.bfloat16):
        assert rows(lt.label_stats(tf.constant(LABELS), tf.constant(VALUES, dtype))) == WANTED
    assert rows(lt.label_stats(tf.constant(LABELS)[:, None], tf.Variable(VALUES))) == WANTED


def test_every_kind_of_tensorflow_tensor_is_recorded_batch_after_batch():
    tf = framework("tensorflow")
    labels = tf.constant([2, 1, 2])
    tracker = lt.LabelTracker(label="y", metric="ce")
    batches = [
        tf.constant([1.0, 2.0, 3.0]),
        tf.constant([1.5, 2.5, 3.5]),
        tf.Variable([4.0, 5.0, 6.0]),
        tf.constant([[7.0], [8.0], [9.0]]),
        tf.constant([1.0, 2.0, 3.0], dtype=tf.bfloat16),
        tf.constant([0.25, 0.5, 0.75], dtype=tf.float64),
        tf.constant([1, 2, 3]),
    ]
    for values in batches:
        tracker.update(labels, values)
    tracker.update(labels[:1], batches[0][:1])
    tracker.update(labels[:2], batches[0][:2])
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update(labels, batches[0][:2])
    with pytest.raises(TypeError, match="real numbers"):
        tracker.update(labels, tf.constant(["a", "b", "c"]))
    values = [tf.cast(values, tf.float64).numpy().reshape(-1) for values in batches]
    expected = np.concatenate([*values, [1.0], [1.0, 2.0]])
    assert rows(tracker.end_epoch(1)) == expected_by_label([*[2, 1, 2] * len(batches), 2, 2, 1], expected)


def test_tensorflow_strings_are_labels():
    tf = framework("tensorflow")
    tracker = lt.LabelTracker(label="y", metric="ce", label_mapping={"a cat": b"cat"})
    tracker.update(tf.constant(["cat", "dog", "cat"]), tf.constant([1.0, 2.0, 4.0]))
    stats = tracker.end_epoch(1)
    assert (stats.labels.tolist(), stats.mean.tolist()) == ([b"cat"], [2.5])


def test_jax_arrays_are_taken():
    jnp = pytest.importorskip("jax.numpy") if not EVERYTHING else __import__("jax.numpy").numpy
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        assert rows(lt.label_stats(jnp.array(LABELS), jnp.array(VALUES, dtype))) == WANTED


def test_every_kind_of_jax_array_is_recorded_batch_after_batch():
    jnp = pytest.importorskip("jax.numpy") if not EVERYTHING else __import__("jax.numpy").numpy
    labels = jnp.array([2, 1, 2])
    tracker = lt.LabelTracker(label="y", metric="ce")
    batches = [
        jnp.array([1.0, 2.0, 3.0]),
        jnp.array([1.5, 2.5, 3.5]),
        jnp.array([[7.0], [8.0], [9.0]]),
        jnp.array([1.0, 2.0, 3.0], dtype=jnp.bfloat16),
        jnp.array([1, 2, 3]),
        jnp.arange(6.0)[::2],
    ]
    for values in batches:
        tracker.update(labels, values)
    tracker.update(labels[:1], batches[0][:1])
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update(labels, batches[0][:2])
    expected = np.concatenate([*(np.asarray(values, dtype=np.float64).reshape(-1) for values in batches), [1.0]])
    assert rows(tracker.end_epoch(1)) == expected_by_label([*[2, 1, 2] * len(batches), 2], expected)


def test_pandas_and_polars_series_are_taken():
    pd, pl = framework("pandas"), framework("polars")
    assert rows(lt.label_stats(pd.Series(LABELS), pd.Series(VALUES))) == WANTED
    assert rows(lt.label_stats(pl.Series(LABELS), pl.Series(VALUES))) == WANTED
    words = ["c", "a", "c", "b", "a", "c"]
    named = expected_by_label(words, VALUES)
    assert rows(lt.label_stats(pd.Series(words), VALUES)) == named
    assert rows(lt.label_stats(pd.Series(words, dtype="category"), VALUES)) == named
    assert rows(lt.label_stats(pl.Series(words), VALUES)) == named


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy before 2.0 has no variable-width strings")
def test_variable_width_strings_are_taken():
    words = np.array(["c", "a long one", "c"], dtype=np.dtypes.StringDType())
    assert rows(lt.label_stats(words, [1, 2, 3])) == expected_by_label(words.tolist(), [1, 2, 3])


def test_subclasses_of_torch_tensors_are_taken_wherever_they_are_defined():
    torch = framework("torch")

    class Image(torch.Tensor):
        pass

    assert Image.__module__ == __name__
    labels = torch.tensor(LABELS).as_subclass(Image)
    values = torch.tensor(VALUES, requires_grad=True).as_subclass(Image)
    assert values.requires_grad
    half = torch.tensor(VALUES, dtype=torch.bfloat16).as_subclass(Image)
    for metric in (values, values * 1, half, values[:, None]):
        assert rows(lt.label_stats(labels, metric)) == WANTED
        tracker = lt.LabelTracker("y", "ce")
        for _ in range(3):
            tracker.update(labels, metric)
        assert tracker.end_epoch(1).count.tolist() == [3 * WANTED[k][0] for k in WANTED]


def test_lists_of_tensors_are_taken_with_their_gradients():
    torch, tf = framework("torch"), framework("tensorflow")
    jnp = pytest.importorskip("jax.numpy") if not EVERYTHING else __import__("jax.numpy").numpy
    weights = torch.tensor(VALUES, requires_grad=True)
    for losses in (list(weights), tuple(weights * 1), [w.double() for w in weights], [w.bfloat16() for w in weights]):
        assert rows(lt.label_stats([torch.tensor(x) for x in LABELS], losses)) == WANTED
    mixed = [torch.tensor(0.5, requires_grad=True), 0.25, np.float32(1.5), tf.constant(-3.0), jnp.array(8.0), 0.125]
    assert rows(lt.label_stats(LABELS, mixed)) == WANTED
    columns = lt.label_stats(np.array([LABELS, LABELS]), [weights, weights.detach()])
    assert rows(columns) == expected_by_label(LABELS * 2, VALUES * 2)


def test_lists_of_numbers_that_numpy_does_not_have_are_taken():
    numbers = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed (it comes with jax)").bfloat16
    assert to_values([numbers(0.5), numbers(-3)]).tolist() == [0.5, -3.0]
