"""Writes TFRecord files as TFDS writes OpenVLA's modified LIBERO sets; protocol buffers by Google's own library."""

import io
import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

FILES = 2
VERSION = "1.0.0"
HOME = "/iris/u/someone/LIBERO/libero/datasets/libero_object_no_noops"


def _message_of_tensorflow():
    """tensorflow.Example, declared as in tensorflow/core/example/{example,feature}.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, (field, kind, label, of) in enumerate(fields, 1):
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of and f".tensorflow.{of}")
        return made

    many, one = kinds.LABEL_REPEATED, kinds.LABEL_OPTIONAL
    message("BytesList", ("value", kinds.TYPE_BYTES, many, None))
    message("FloatList", ("value", kinds.TYPE_FLOAT, many, None))
    message("Int64List", ("value", kinds.TYPE_INT64, many, None))
    feature = message(
        "Feature", *((f"{k.lower()}_list", kinds.TYPE_MESSAGE, one, f"{k}List") for k in ("Bytes", "Float", "Int64"))
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", kinds.TYPE_MESSAGE, many, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, label=one, type_name=".tensorflow.Feature")
    message("Example", ("features", kinds.TYPE_MESSAGE, one, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _message_of_tensorflow()


def write(path: Path, truths: list) -> None:
    folder = path / VERSION
    folder.mkdir(parents=True)
    name = path.name
    (folder / "features.json").write_text("{}")
    records = [record(example(truth)) for truth in truths]
    lengths = []
    for index in range(FILES):
        part = records[index * len(records) // FILES : (index + 1) * len(records) // FILES]
        (folder / f"{name}-train.tfrecord-{index:05d}-of-{FILES:05d}").write_bytes(b"".join(part))
        lengths.append(str(len(part)))
    info = {"name": name, "version": VERSION, "splits": [{"name": "train", "shardLengths": lengths}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def example(truth, source: bool = True) -> bytes:
    frames = len(truth.actions)
    last = np.arange(frames) == frames - 1
    made = Example()
    feature = made.features.feature
    feature["steps/action"].float_list.value.extend(truth.actions.astype(np.float32).ravel().tolist())
    feature["steps/observation/state"].float_list.value.extend(truth.states[:-1].astype(np.float32).ravel().tolist())
    feature["steps/observation/joint_state"].float_list.value.extend([0.0] * 7 * frames)
    feature["steps/observation/image"].bytes_list.value.extend(map(compressed, truth.scene[:-1]))
    feature["steps/observation/wrist_image"].bytes_list.value.extend(map(compressed, truth.wrist[:-1]))
    feature["steps/language_instruction"].bytes_list.value.extend([truth.instruction.encode()] * frames)
    feature["steps/reward"].float_list.value.extend(last.astype(float).tolist())
    feature["steps/discount"].float_list.value.extend([1.0] * frames)
    for name in ("is_last", "is_terminal"):
        feature[f"steps/{name}"].int64_list.value.extend(last.astype(int).tolist())
    feature["steps/is_first"].int64_list.value.extend([1] + [0] * (frames - 1))
    if source:
        feature["episode_metadata/file_path"].bytes_list.value.append(f"{HOME}/{truth.task}_demo.hdf5".encode())
    return made.SerializeToString()


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def compressed(picture: np.ndarray) -> bytes:
    """The builder turns pictures by 180 degrees before TFDS compresses them."""
    file = io.BytesIO()
    Image.fromarray(picture[::-1, ::-1]).save(file, "JPEG", quality=95)
    return file.getvalue()
