"""Arrow IPC messages: what pyarrow writes is read as pyarrow reads it, and everything else is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from labeltrack.errors import DamagedRunError
from labeltrack.recording import arrow_ipc as _ipc

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def column_of(data, batch, schema, i):
    return np.frombuffer(data, list(schema.dtypes.values())[i], batch.rows, batch.columns[i])


def file_of(table, *, metadata=None, **options):
    """The bytes of an Arrow file with one batch for each chunk."""
    out = io.BytesIO()
    table = table.replace_schema_metadata(metadata)
    with pa.ipc.new_file(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for i, batch in enumerate(table.to_batches()):
            writer.write_batch(batch, custom_metadata={"number": str(i)})
    return memoryview(out.getvalue())


def read_all(data):
    schema, position = _ipc.read_schema(data)
    batches = []
    while (batch := _ipc.read_batch(data, position, schema)) is not None:
        batches.append(batch)
        position = batch.end
    return schema, batches


@pytest.mark.parametrize("label", ["uint8", "int32", "int64", "uint64", "float64"])
@pytest.mark.parametrize("value", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [[1], [5, 3], [7, 64, 1000]])
def test_what_pyarrow_writes_is_read_without_a_copy(label, value, lengths):
    rng = np.random.default_rng(3)
    parts = [(rng.integers(0, 200, n).astype(label), rng.normal(size=n).astype(value)) for n in lengths]
    columns = [pa.chunked_array([part[i] for part in parts]) for i in (0, 1)]
    data = file_of(pa.table({"label": columns[0], "value": columns[1]}), metadata={"a": "ä", "b": ""})
    schema, batches = read_all(data)
    assert schema.dtypes == {"label": np.dtype(label), "value": np.dtype(value)}
    assert schema.metadata == {"a": "ä", "b": ""}
    assert [batch.rows for batch in batches] == lengths
    for i, (batch, part) in enumerate(zip(batches, parts, strict=True)):
        assert batch.metadata == {"number": str(i)}
        for j in (0, 1):
            column = column_of(data, batch, schema, j)
            np.testing.assert_array_equal(column, part[j])
            assert not column.flags.owndata


def nested(depth):
    kind = pa.int32()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.table({"label": pa.array([None], kind)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: file_of(pa.table({"label": ["a"]})), "plain numbers"),
        (lambda: file_of(pa.table({"label": pa.array(["a"]).dictionary_encode()})), "plain numbers"),
        (lambda: file_of(pa.table({"label": [[1]]})), "plain numbers"),
        (lambda: file_of(nested(50)), "plain numbers"),
        (lambda: file_of(pa.table({"label": pa.array([1], pa.int16())})), "does not write"),
        (lambda: file_of(pa.table({"label": pa.array([1], pa.timestamp("s"))})), "plain numbers"),
        (lambda: file_of(pa.table({"label": pa.array([1, None], pa.int32())})), "nulls"),
        (lambda: file_of(pa.table({"label": np.zeros(1000)}), compression="zstd"), "compressed"),
        (lambda: file_of(pa.table({"label": np.zeros(1000)}), compression="lz4"), "compressed"),
        (lambda: memoryview(b""), "not an Arrow file"),
        (lambda: memoryview(b"ARROW1\0\0"), "ends within"),
        (lambda: memoryview(b"PAR1" * 100), "not an Arrow file"),
        (lambda: memoryview(_ipc.MAGIC + struct.pack("<Ii", 0xFFFFFFFF, 0)), "no schema"),
        (lambda: memoryview(_ipc.MAGIC + struct.pack("<Ii", 0xFFFFFFFF, -8)), "metadata of -8 bytes"),
        (lambda: memoryview(_ipc.MAGIC + struct.pack("<Ii", 0xFFFFFFFF, 2**31 - 8)), "metadata of"),
        (lambda: memoryview(_ipc.MAGIC + struct.pack("<Ii", 0, 8) + bytes(8)), "no message"),
        (lambda: memoryview(_ipc.MAGIC + struct.pack("<Ii", 0xFFFFFFFF, 64) + bytes(63)), "within a message"),
    ],
)
def test_what_labeltrack_does_not_write_is_refused(make, message):
    with pytest.raises(DamagedRunError, match=message):
        read_all(make())


@pytest.fixture(scope="module", name="whole")
def _whole():
    table = pa.table({"label": np.arange(300, dtype=np.int32), "value": np.ones(300, np.float32)})
    chunks = pa.concat_tables([table, table, table])
    return file_of(chunks, metadata={"mode": "train"})


def test_every_truncation_is_found(whole):
    schema, batches = read_all(whole)
    body_end = batches[-1].end + 8
    for size in range(body_end):
        with pytest.raises(DamagedRunError):
            read_all(whole[:size])
    assert [b.rows for b in read_all(whole[:body_end])[1]] == [300] * 3
    assert len(schema.dtypes) == 2


def test_no_damage_leads_out_of_the_file(whole):
    rng = np.random.default_rng(0)
    _, first = _ipc.read_schema(whole)
    refused = 0
    for _ in range(5000):
        data = bytearray(whole)
        # Most of the file is columns, which checksums guard; here the messages around them are hit.
        for place in rng.integers(0, first + 400, rng.integers(1, 4)).tolist():
            data[place] ^= 1 << rng.integers(0, 8)
        view = memoryview(data)
        try:
            schema, batches = read_all(view)
        except DamagedRunError:
            refused += 1
            continue
        for batch in batches:
            for i in range(len(schema.dtypes)):
                assert column_of(view, batch, schema, i).shape == (batch.rows,)
    assert refused > 1000
