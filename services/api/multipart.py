"""A multipart body, part by part as it arrives: the `file` part goes straight to a file.

Pure: bytes in, a file and short text fields out.
"""

from __future__ import annotations

from typing import BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

MAX_FIELD_BYTES = 2048
MAX_PARTS = 16


class BadMultipart(Exception):
    """The body is not the form that was asked for."""


class FormReader:
    """Feed it the body; afterwards `fields`, `filename` and `content_type` are there.

    `received` counts the bytes of the file part alone.
    """

    def __init__(self, boundary: bytes, file: BinaryIO, names: frozenset[str]) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.content_type: str | None = None
        self.received = 0
        self.has_file = False
        self._names, self._file = names, file
        self._parts = 0
        self._ended = False
        self._headers: dict[str, str] = {}
        self._header = bytearray()
        self._value = bytearray()
        self._field: str | None = None
        self._text = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadMultipart(str(error)) from error

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; raises BadMultipart."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadMultipart(str(error)) from error

    def finish(self) -> None:
        """The body is complete; raises BadMultipart if the form is not."""
        if not self._ended:
            raise BadMultipart("the form ends early")
        if not self.has_file:
            raise BadMultipart("the form has no part named 'file'")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadMultipart(f"more than {MAX_PARTS} parts")
        self._headers.clear()
        self._text.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._header.decode("latin-1").lower()
        self._headers[name] = self._value.decode("latin-1")  # as parse_options_header reads it
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = _text(options.get(b"name", b""))
        self._field = None if name == "file" else name
        if name == "file":
            if self.has_file:
                raise BadMultipart("more than one part named 'file'")
            self.has_file = True
            if b"filename" in options:
                self.filename = _text(options[b"filename"])
            self.content_type = self._headers.get("content-type")
        elif name not in self._names:
            known = ", ".join(["file", *sorted(self._names)])
            raise BadMultipart(f"unknown part {name[:100]!r}; known: {known}")
        elif name in self.fields:
            raise BadMultipart(f"more than one part named {name!r}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.received += end - start
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise BadMultipart(f"part {self._field!r} is longer than {MAX_FIELD_BYTES} bytes")

    def _on_part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = _text(bytes(self._text))

    def _on_end(self) -> None:
        self._ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
