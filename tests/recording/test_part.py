"""A part: written, closed, torn, damaged, and read by others."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack.recording.part import OPEN, PartWriter, examine
from labeltrack.recording.storage import FileContent

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")

METADATA = {"mode": "train", "kind": "integer"}


def batches(lengths, label="int32", value="float32", seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 50, n).astype(label), rng.normal(size=n).astype(value)) for n in lengths]


def written(path, data, *, closed=True, **options):
    """Write a part; return where it lies."""
    labels, values = data[0]
    writer = PartWriter(path, {"label": labels.dtype, "value": values.dtype}, METADATA)
    for i, (labels, values) in enumerate(data):
        writer.write([labels, values], options if i == len(data) - 1 else None)
    if not closed:
        writer.abandon()
        return writer.open_path
    writer.close(sync=False)
    writer.open_path.rename(path)
    return path


def read(file):
    return examine(memoryview(file) if isinstance(file, (bytes, bytearray)) else FileContent(file))


def rows(part):
    columns = [part.read(batch) for batch in part.batches if batch.rows]
    return [(labels.tolist(), values.tolist()) for (labels, values), _ in columns]


def plain(data):
    return [(labels.tolist(), values.tolist()) for labels, values in data if len(labels)]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("label", ["uint8", "int32", "int64", "uint64", "float64"])
@pytest.mark.parametrize("value", ["float32", "float64"])
def test_every_row_that_was_written_is_read(tmp_path, label, value, closed):
    data = batches([64, 5, 0, 1000], label, value)
    path = written(tmp_path / "part.arrow", data, closed=closed)
    assert path.name == ("part.arrow" if closed else "part.arrow" + OPEN)
    part = read(path)
    assert rows(part) == plain(data)
    assert (part.rows, part.closed, part.lost_rows) == (1069, closed, 0)
    assert part.torn is not closed
    assert METADATA.items() <= part.metadata.items()
    if closed:
        assert not part.damage


def test_other_libraries_open_a_closed_part(tmp_path):
    data = batches([64, 1000])
    path = written(tmp_path / "part.arrow", data)
    labels, values = (np.concatenate([batch[i] for batch in data]) for i in (0, 1))
    import pyarrow.dataset as ds
    import pyarrow.feather

    tables = [ds.dataset(path, format="ipc").to_table(), pyarrow.feather.read_table(path)]
    polars = pytest.importorskip("polars", reason="polars is not installed (extra 'test')")
    tables += [polars.read_ipc(path).to_arrow(), polars.scan_ipc(path).collect().to_arrow()]
    pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra 'test')")
    tables.append(pa.Table.from_pandas(pandas.read_feather(path)))
    for table in tables:
        np.testing.assert_array_equal(table["label"].to_numpy(), labels)
        np.testing.assert_array_equal(table["value"].to_numpy(), values)


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory):
    data = batches([40, 33, 0, 64])
    path = written(tmp_path_factory.mktemp("part") / "part.arrow", data, step="3")
    return path.read_bytes(), data


def test_a_truncated_part_has_every_complete_batch_and_no_other(whole):
    content, data = whole
    ends = [batch.end for batch in read(content).batches]
    for size in [*range(0, len(content), 7), *(end + more for end in ends for more in (-1, 0, 1))]:
        part = read(content[:size])
        complete = sum(end <= size for end in ends)
        assert rows(part) == plain(data[:complete])
        assert len(part.batches) == complete
        if size < ends[-1] + 8:  # what comes after is the footer, which is not needed
            assert part.damage
            assert part.torn
            assert not part.closed
        else:
            assert part.closed


def test_no_flipped_bit_is_read_as_a_sample(whole):
    content, data = whole
    end = read(content).batches[-1].end + 8
    right = plain(data)
    rng = np.random.default_rng(0)
    noticed = 0
    for place in rng.integers(0, end, 3000).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(0, 8)
        part = read(damaged)
        assert all(row in right for row in rows(part))  # batches may be missing; none is wrong
        noticed += bool(part.damage)
        assert part.damage or rows(part) == right
        if part.damage and part.metadata and not part.torn:
            assert part.rows + part.lost_rows <= sum(len(labels) for labels, _ in data)
    # Bytes between messages' parts, and names that nothing depends on, may change unnoticed; few do.
    assert noticed > 2000


def test_batches_behind_a_damaged_one_are_read(whole):
    content, data = whole
    damaged = bytearray(content)
    damaged[read(content).batches[1].columns[1] + 5] ^= 16
    part = read(damaged)
    assert rows(part) == plain([data[0], *data[2:]])
    assert (part.lost_rows, part.torn, part.closed) == (33, False, False)
    assert "batch 1" in part.damage


@pytest.mark.parametrize("key", ["seq", "rows", "step"])
def test_what_a_batch_says_of_itself_is_guarded_too(whole, key):
    content, _ = whole
    last = read(content).batches[-1]
    value = last.metadata[key].encode()
    start = content.rindex(key.encode() + b"\0", 0, last.end)
    place = min(i for i in range(max(0, start - 64), start + 64) if content[i : i + len(value) + 1] == value + b"\0")
    damaged = bytearray(content)
    damaged[place] ^= 1
    part = read(damaged)
    assert len(part.batches) == 3
    assert part.damage


def test_batches_of_another_part_or_in_another_order_are_not_taken(tmp_path):
    data = batches([64, 64, 64])
    content = written(tmp_path / "part.arrow", data).read_bytes()
    ends = [batch.end for batch in read(content).batches]
    first, second = content[ends[0] : ends[1]], content[ends[1] : ends[2]]
    part = read(content[: ends[0]] + second + first + content[ends[2] :])
    assert rows(part) == plain(data[:1])
    assert part.lost_rows == 128


def test_a_part_is_never_written_over(tmp_path):
    writer = PartWriter(tmp_path / "part.arrow", {"label": np.int32, "value": np.float32}, METADATA)
    with pytest.raises(FileExistsError):
        PartWriter(tmp_path / "part.arrow", {"label": np.int32, "value": np.float32}, METADATA)
    writer.abandon()
