"""Files that hold documents in records: lines of JSON, rows of Parquet and Arrow, records of ArrayRecord and
TFRecord, which may be serialized tf.train.Examples or JSON objects.

Everything here yields (bytes, group) of each document, and raises UserError that names file and line, row or
record."""

import io
import json
import struct

from bltjax.data import file_kinds, file_signs
from bltjax.errors import UserError

BATCH = 256  # rows decoded at once
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
            line.removeprefix(file_kinds.BOM).decode("utf-8", "surrogateescape"), parse_int=file_kinds.integer
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
    return data, _group(_field(record, "group_field", group_field, where, hint)) if group_field else group


def _field(record, key, field, where, hint=""):
    if field not in record:
        raise UserError(
            f"{where}: no field {field!r} (data.{key}); it has {', '.join(sorted(record)) or 'none'}{hint}"
        )
    return record[field]


def _group(value) -> str:
    return "" if value is None else str(value)


def rows(path, stream, kind, field, longest, group_field):
    """Documents of a column of a Parquet or Arrow file."""
    import pyarrow  # here and below where it is needed: it takes longer to import than most verbs take
    import pyarrow.parquet

    if kind == file_signs.ARROW_STREAM:
        reader = pyarrow.ipc.open_stream(pyarrow.PythonFile(stream, mode="r"))
        schema, batches = reader.schema, reader
    else:
        seekable = stream if stream.seekable() else io.BytesIO(stream.read())
        if kind == file_signs.ARROW:
            reader = pyarrow.ipc.open_file(pyarrow.PythonFile(seekable, mode="r"))
            schema = reader.schema
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            table = pyarrow.parquet.ParquetFile(seekable)
            schema = table.schema_arrow
            wanted = [field, *filter(None, [group_field])]
            batches = table.iter_batches(BATCH, columns=[name for name in wanted if name in schema.names])
    for key, wanted in (("text_field", field), ("group_field", group_field)):
        if wanted and schema.names.count(wanted) != 1:
            raise UserError(
                f"{path}: {'more than one' if wanted in schema.names else 'no'} column {wanted!r}"
                f" (data.{key}); it has {', '.join(schema.names)}"
            )
    if not _holds_text(schema.field(field).type):
        raise UserError(f"{path}: column {field!r} is of {schema.field(field).type}, not text or bytes")
    ending = "parquet" if kind == file_signs.PARQUET else "arrow"
    number = 0
    for batch in batches:
        for first in range(0, batch.num_rows, BATCH):
            some = batch.slice(first, BATCH)
            texts = _texts(some.column(some.schema.get_field_index(field)))
            groups = (
                some.column(some.schema.get_field_index(group_field)).to_pylist()
                if group_field
                else [ending] * len(texts)
            )
            for text, group in zip(texts, groups, strict=True):
                number += 1
                yield within(text or b"", longest, f"{path} row {number}"), _group(group)
    if kind == file_signs.ARROW_STREAM and stream.read(1):
        raise UserError(f"{path} goes on behind the end of its Arrow stream; keep one stream a file")


def _holds_text(kind) -> bool:
    import pyarrow

    types = pyarrow.types
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _holds_text(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _holds_text(kind.value_type)
    return any(
        test(kind)
        for test in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
            types.is_fixed_size_binary,
        )
    )


def _texts(column) -> list:
    """Bytes, or None, of each row; what is no UTF-8 in a column of text stays as it is."""
    import pyarrow

    try:
        return column.cast(pyarrow.large_binary()).to_pylist()
    except pyarrow.ArrowNotImplementedError:  # rarer layouts, which it decodes only one by one
        return [text.encode() if isinstance(text, str) else text for text in column.to_pylist()]


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
    """Yields the records of a TFRecord file. The checksums of lengths are compared, those of data are not."""
    number = 0
    while head := stream.read(12):
        where = f"{path} record {number}"
        if len(head) < 12 or struct.unpack_from("<I", head, 8)[0] != file_signs.masked_crc32c(head[:8]):
            raise UserError(f"cannot read {where}: it is damaged or cut off")
        (size,) = struct.unpack_from("<Q", head)
        if size > longest:
            raise UserError(f"{where}: {size:,} bytes, more than data.longest={longest:,}")
        record = stream.read(size + 4)
        if len(record) < size + 4:
            raise UserError(f"cannot read {where}: it is cut off")
        yield record[:size]
        number += 1


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
