"""Tables that hold a document a row: Parquet and Arrow. What says of itself that it is damaged, or that more
than one file stands in it, is refused."""

import io
import struct

from bltjax.data import file_signs, records
from bltjax.errors import UserError

BATCH = 256  # rows decoded at once


def rows(path, stream, kind, field, longest, group_field):
    """Documents of a column of a Parquet or Arrow file."""
    import pyarrow  # here and below where it is needed: it takes longer to import than most verbs take
    import pyarrow.parquet

    wanted = [field, *filter(None, [group_field])]
    if kind == file_signs.ARROW_STREAM:
        reader = pyarrow.ipc.open_stream(pyarrow.PythonFile(stream, mode="r"))
        schema, batches = reader.schema, reader
    else:
        seekable = stream if stream.seekable() else io.BytesIO(stream.read())
        if kind == file_signs.ARROW:
            _refuse_joined_arrow(path, seekable)
            reader = pyarrow.ipc.open_file(pyarrow.PythonFile(seekable, mode="r"))
            schema = reader.schema
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            table = pyarrow.parquet.ParquetFile(seekable, page_checksum_verification=True)
            _refuse_joined_parquet(path, seekable, table.metadata)
            schema = table.schema_arrow
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
        batch.validate()
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
                yield records.within(text or b"", longest, f"{path} row {number}"), records.as_group(group)
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
    """Bytes, or None, of each row; what is no UTF-8 in a column of text stays as it is. ValueError where a
    text would lie elsewhere than in the file."""
    import pyarrow

    as_bytes = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
    if column.type in as_bytes:
        column = column.view(as_bytes[column.type])
    column.validate(full=True)
    try:
        return column.cast(pyarrow.large_binary()).to_pylist()
    except pyarrow.ArrowNotImplementedError:  # rarer layouts, which it decodes only one by one
        return [text.encode() if isinstance(text, str) else text for text in column.to_pylist()]


def _refuse_joined_parquet(path, file, metadata) -> None:
    """UserError where another file stands before this one. A footer counts from the file's beginning, so that
    the first file's rows would be read for the last one's.

    Between the columns and the footer are no more than indexes; or, of joined files, as many bytes as the
    others have."""
    size, end = file.seek(0, io.SEEK_END), 4
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            starts = (column.dictionary_page_offset, column.data_page_offset)
            end = max(end, min(start for start in starts if start) + column.total_compressed_size)
    between = size - 8 - metadata.serialized_size - end
    file.seek(0)
    if b"PAR1PAR1" in file.read(max(0, between) + 8):
        raise _joined(path, "Parquet")
    file.seek(0)


def _refuse_joined_arrow(path, file) -> None:
    """UserError where anything but the mark of the stream's end is between the last batch that the footer
    names and the footer; else as above."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 10))
    length = int.from_bytes(file.read(4), "little")
    start = size - 10 - length  # of the footer
    if start < 8:
        return  # pyarrow says what is wrong with it
    file.seek(start)
    footer = file.read(length)
    try:
        ends = list(_ends_of_blocks(footer))
    except (struct.error, IndexError):
        raise UserError(f"cannot read {path}: its footer is damaged") from None
    file.seek(max(ends, default=8))
    between = file.read(max(0, start - file.tell()))
    for mark in (b"\xff\xff\xff\xff\0\0\0\0", bytes(4)):
        if between.startswith(mark):
            between = between.removeprefix(mark).strip(b"\0")
    if between if ends else b"ARROW1" in between:  # without batches the schema stands there
        raise _joined(path, "Arrow")
    file.seek(0)


def _ends_of_blocks(footer: bytes):
    """Where the dictionaries and batches end that an Arrow footer names: a FlatBuffers table, of whose fields
    2 and 3 are vectors of (offset int64, bytes of metadata int32, bytes of body int64)."""
    at = lambda form, place: struct.unpack_from(form, footer, place)[0]
    table = at("<I", 0)
    fields = table - at("<i", table)
    for place in (8, 10):
        if place < at("<H", fields) and (field := at("<H", fields + place)):
            vector = table + field + at("<I", table + field)
            for number in range(at("<I", vector)):
                yield sum(struct.unpack_from("<qi4xq", footer, vector + 4 + 24 * number))


def _joined(path, kind: str) -> UserError:
    return UserError(
        f"{path} holds more than one {kind} file, or bytes that are not of one; keep each a file of its own"
    )
