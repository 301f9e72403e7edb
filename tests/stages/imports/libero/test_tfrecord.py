"""TFRecord files and the protocol buffers in them, against Google's own library."""

import struct

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.imports.libero.tfrecord import records
from tests.stages.imports.libero.rlds_files import Example, record

VALUES = st.one_of(
    st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=300), max_size=5)),
    st.tuples(st.just("float_list"), st.lists(st.floats(width=32, allow_nan=False), max_size=40)),
    st.tuples(st.just("int64_list"), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)),
)
EXAMPLES = st.lists(st.dictionaries(st.text(max_size=20), VALUES, max_size=5), max_size=4)


def serialised(features):
    made = Example()
    for name, (kind, values) in features.items():
        getattr(made.features.feature[name], kind).value.extend(values)
    return made.SerializeToString()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("tfrecord") / "x.tfrecord-00000-of-00001"


def test_the_checksum_is_the_one_of_the_standard():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, B.4, and every catalogue of CRCs


@given(EXAMPLES)
def test_what_was_written_is_read(file, examples):
    file.write_bytes(b"".join(record(serialised(features)) for features in examples))
    found = list(records(file))
    assert len(found) == len(examples)
    for one, features in zip(found, examples, strict=True):
        one.verify()
        for name, (kind, values) in features.items():
            assert one.texts(name) == (values if kind == "bytes_list" else [])
            floats = values if kind == "float_list" else []
            assert np.array_equal(one.floats(name), np.array(floats, np.float32))
            assert one.count_floats(name) == len(floats)
        assert one.texts("what is not there") == []


def test_floats_one_by_one_are_read_as_well(file):
    """As TensorFlow 1 and others write them: each with a tag of its own."""
    values = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0))
    floats = b"\x12" + bytes([len(values)]) + values
    entry = b"\x0a\x01a" + b"\x12" + bytes([len(floats)]) + floats
    feature = b"\x0a" + bytes([len(entry)]) + entry
    file.write_bytes(record(b"\x0a" + bytes([len(feature)]) + feature))
    (found,) = records(file)
    assert found.floats("a").tolist() == [1.5, -2.0]
    assert found.count_floats("a") == 2


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(file, data):
    features = [{"action": ("float_list", [1.0, 2.0]), "image": ("bytes_list", [b"picture" * 9])}] * 2
    whole = bytearray(b"".join(record(serialised(each)) for each in features))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"download it again$"):
        read_all(file)


def read_all(file):
    for one in records(file):
        one.verify()
