"""A Parquet file's rows as JSON lines, in a process of its own with little memory to spend.

    python -m selftaught.parquet_child MAX_ROW_BYTES MEMORY_BYTES < file > rows

A file of a kilobyte may ask for gigabytes (a dictionary with one long text, pages that unpack to
more than they say), and a damaged one may crash its decoder. Here both end this process only.
A row whose texts have more than MAX_ROW_BYTES is written as `null`. Exit status 3: not readable,
the reason on stderr; any other but 0: it ran out of memory, or crashed.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

UNREADABLE = 3
_ROWS = 64  # read at a time: with rows of a megabyte, still some hundred megabytes
_BUFFER = 1 << 20  # read ahead of each column, instead of its whole row group


def rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Every row, without the fields that are null. Raises pyarrow's errors, OSError, ValueError."""
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file, buffer_size=_BUFFER)
    for batch in opened.iter_batches(_ROWS, use_threads=False):
        for row in batch.to_pylist():
            yield {name: value for name, value in row.items() if value is not None}


def size(value: Any) -> int:
    """Bytes of all texts inside, about."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(size(one) for one in value.values())
    return sum(size(one) for one in value) if isinstance(value, list) else 0


def line(row: dict[str, Any], max_row_bytes: int) -> bytes:
    """A row as JSON; what JSON has no word for becomes the name of its type, in a list."""
    if size(row) > max_row_bytes:
        return b"null\n"
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(row, default=lambda value: [type(value).__name__], option=option)


def main() -> int:
    """Standard input to standard output; the exit status."""
    max_row_bytes, memory = (int(one) for one in sys.argv[1:3])
    # All of Arrow's memory is then counted; its own allocators set more aside than they use.
    # A thread more is a stack more, on machines with many cores a large one.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS"), "1"
    )
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow as pa

    try:
        for row in rows(sys.stdin.buffer):
            sys.stdout.buffer.write(line(row, max_row_bytes))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # nobody wants more
    except MemoryError:
        os._exit(1)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        sys.stdout.buffer.flush()
        sys.stderr.write(said)
        return UNREADABLE
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # at an interpreter's end Arrow's threads abort now and then
