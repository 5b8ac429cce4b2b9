"""Files that hold documents in records: lines of JSON, and records of ArrayRecord and TFRecord, which may be
serialized tf.train.Examples or JSON objects. (Rows of tables: data/tables.py.)

Everything here yields (bytes, group) of each document, and raises UserError that names file and line, row or
record."""

import json
import struct

import numpy as np

from bltjax.data import crc32c, file_kinds, file_signs
from bltjax.errors import UserError

BLOCK = 1 << 20  # bytes of records whose checksums are compared at once
EXAMPLE, JSON_OBJECT = "tf.train.Example", "JSON object"  # what records hold
MESSAGE_PACK = tuple(bytes([first]) for first in (*range(0x81, 0x90), 0xDE, 0xDF))  # a map begins so


def within(document: bytes, longest: int, where: str) -> bytes:
    if len(document) > longest:
        raise UserError(
            f"{where}: a document of more than {longest:,} bytes (data.longest); cut it into several, or"
            " allow more"
        )
    return document


def lines(path, stream, field, longest, group_field):
    """Documents of JSON lines."""
    promised = file_kinds.CLAIMS.get(file_kinds.ending(path))
    hint = "" if promised else f" ({file_signs.AS_IT_IS})"
    room = 6 * longest + (1 << 16)  # a byte may take six as \u00e9, and there may be other fields
    number = 0
    while line := stream.readline(room + 1):
        number += 1
        where = f"{path} line {number}"
        if len(line) > room:
            raise UserError(
                f"{where}: more than {room:,} bytes without a line's end (data.longest is {longest:,})"
            )
        if line.strip():
            text, group = _of_json(line, field, group_field, "jsonl", where, hint)
            yield within(text, longest, where), group


def _of_json(line, field, group_field, group, where, hint):
    """(text, group) of a JSON object."""
    try:
        record = json.loads(
            file_kinds.json_of(line).decode("utf-8", "surrogateescape"), parse_int=file_kinds.integer
        )
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not a JSON object (one object a line is expected){hint}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__}, not an object{hint}")
    text = _field(record, "text_field", field, where, hint)
    if not isinstance(text, str):
        raise UserError(f"{where}: field {field!r} is a {type(text).__name__}, not a string")
    try:
        # bytes that were no UTF-8 come out as they went in
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UserError(f"{where}: field {field!r} holds a lone surrogate, which is no text") from None
    return data, as_group(_field(record, "group_field", group_field, where, hint)) if group_field else group


def _field(record, key, field, where, hint=""):
    if field not in record:
        raise UserError(
            f"{where}: no field {field!r} (data.{key}); it has {', '.join(sorted(record)) or 'none'}{hint}"
        )
    return record[field]


def as_group(value) -> str:
    return "" if value is None else str(value)


def array_records(path, longest: int):
    """Yields the records of an ArrayRecord file on this machine."""
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(path), options="")
        for number in range(reader.num_records()):
            yield within(bytes(reader.read()), longest, f"{path} record {number}")
        reader.close()
    except RuntimeError as error:  # the library's only error
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def tf_records(path, stream, longest: int):
    """Yields the records of a TFRecord file; its checksums are compared."""
    records, checksums, held, number = [], [], 0, 0
    while head := stream.read(12):
        where = f"{path} record {number}"
        if len(head) < 12 or struct.unpack_from("<I", head, 8)[0] != crc32c.masked(crc32c.of(head[:8])):
            raise UserError(f"cannot read {where}: it is damaged or cut off")
        (size,) = struct.unpack_from("<Q", head)
        if size > longest:
            raise UserError(f"{where}: {size:,} bytes, more than data.longest={longest:,}")
        record = stream.read(size + 4)
        if len(record) < size + 4:
            raise UserError(f"cannot read {where}: it is cut off")
        records.append(record[:size])
        checksums.append(int.from_bytes(record[size:], "little"))
        held, number = held + size, number + 1
        if held > BLOCK:
            yield from _whole(records, checksums, path, number)
            records, checksums, held = [], [], 0
    yield from _whole(records, checksums, path, number)


def _whole(records: list[bytes], checksums: list[int], path, number: int) -> list[bytes]:
    """The records themselves, which end before record `number`. UserError where one is damaged."""
    if not records:
        return records
    differ = np.flatnonzero(crc32c.masked(crc32c.of_each(records)) != np.array(checksums, np.uint32))
    if len(differ):
        raise UserError(
            f"cannot read {path} record {number - len(records) + differ[0]}: its checksum is another; it is"
            " damaged"
        )
    return records


def texts(path, records, kind, field, group_field):
    """Documents of records: the text that each is, or, where the first is a serialized tf.train.Example or a
    JSON object, the field of each."""
    group, hold = kind.lower(), None
    for number, record in enumerate(records):
        where = f"{path} record {number}"
        if not record:
            yield record, group
            continue
        if hold is None:
            hold = _told(record, where)
        if hold == JSON_OBJECT:
            yield _of_json(record, field, group_field, group, where, "")
        elif hold == EXAMPLE:
            features = _features(record)
            if features is None:
                raise UserError(f"{where} is no tf.train.Example, as those before it are")
            text = _feature(features, "text_field", field, where)
            yield text, _group_of(features, group_field, where) if group_field else group
        elif _features(record):
            raise UserError(f"{where} is a tf.train.Example, as those before it are not")
        else:
            yield file_kinds.refuse_binary(record, where), group


def _told(record: bytes, where: str) -> str:
    """What records such as this hold. UserError where it is not read."""
    if _features(record):
        return EXAMPLE
    if file_kinds.json_object(record) is not None:
        return JSON_OBJECT
    if record.startswith(b"\n") and _parsed(record, "SequenceExample"):
        raise UserError(
            f"{where} is a tf.train.SequenceExample, which is not read; write its text as Examples"
        )
    if record[:1] in MESSAGE_PACK and _unpacked(record):
        raise UserError(
            f"{where} is a map of MessagePack, which is not read; write its text alone, or as JSON"
        )
    file_kinds.refuse_by_name(record[: file_signs.HEAD], where)
    return ""


def _features(record: bytes):
    """{name: tf.train.Feature} of a serialized tf.train.Example; None where a record is none."""
    example = _parsed(record, "Example") if record.startswith(b"\n") else None
    return example.features.feature if example and example.features.feature else None


def _parsed(record: bytes, message: str):
    """A protocol buffer that a record is exactly; None where it is none."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_generated_pb2 as proto

    found = getattr(proto, message)()
    try:
        found.ParseFromString(record)
    except DecodeError:
        return None
    found.DiscardUnknownFields()  # which text that happens to parse has
    return found if found.ByteSize() == len(record) else None


def _unpacked(record: bytes) -> bool:
    import msgpack

    try:
        return isinstance(msgpack.unpackb(record, strict_map_key=False), dict)
    except ValueError:  # of which the library's errors are kinds
        return False


def _feature(features, key, field, where) -> bytes:
    if field not in features:
        raise UserError(
            f"{where}: no field {field!r} (data.{key}) in its tf.train.Example; it has"
            f" {', '.join(sorted(features))}"
        )
    values = features[field].bytes_list.value
    if features[field].WhichOneof("kind") not in ("bytes_list", None):
        raise UserError(f"{where}: field {field!r} holds numbers, not text or bytes")
    if len(values) > 1:
        raise UserError(f"{where}: field {field!r} holds {len(values)} texts, not one")
    return values[0] if values else b""


def _group_of(features, field, where) -> str:
    if field in features and features[field].WhichOneof("kind") in ("int64_list", "float_list"):
        return " ".join(str(v) for v in getattr(features[field], features[field].WhichOneof("kind")).value)
    return _feature(features, "group_field", field, where).decode(errors="replace")
