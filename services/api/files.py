"""The files of a trained version, to take away: an adapter as PEFT saves one, or whole weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Path
from fastapi.responses import Response, StreamingResponse

from selftaught import aliases
from selftaught.contracts import Page, VersionFile
from selftaught.database import transaction
from selftaught.http import Refused, problem_docs
from selftaught.versions import version_folder
from services.api.deps import Name, Number

router = APIRouter(prefix="/v1/models/{name}/versions/{number}/files", tags=["models"])

BYTES = "application/octet-stream"
_PIECE = 1 << 20
_DOCS: dict[int | str, dict[str, Any]] = problem_docs(404) | {
    200: {
        "description": "The file.",
        "content": {
            BYTES: {"schema": {"type": "string", "format": "binary"}, "example": '{"r": 16, ..}'}
        },
    }
}


@router.get("", responses=problem_docs(404))
def list_version_files(name: Name, number: Number) -> Page[VersionFile]:
    """The files of a trained version: an adapter in PEFT's format, or whole weights.

    All of them are downloaded whole when the version's `sha256` is the sha256 of the lines
    `NAME NUL SHA256 NEWLINE` of its files in the order of their names.
    """
    url = f"/v1/models/{name}/versions/{number}/files"
    data = [
        VersionFile(name=file.name, bytes=file.stat().st_size, url=f"{url}/{file.name}")
        for file in _files(name, number).values()
    ]
    return Page(data=data, has_more=False)


@router.get("/{file}", response_class=Response, responses=_DOCS)
def download_version_file(
    name: Name,
    number: Number,
    file: Annotated[
        str, Path(description="As in the list.", examples=["adapter_model.safetensors"])
    ],
) -> Response:
    """One file of a trained version."""
    found = _files(name, number).get(file)
    if found is None:
        raise Refused(404, "no_such_file", f"{name}:{number} has no file {file!r}", param="file")
    stream = found.open("rb")
    headers = {
        "Content-Disposition": f'attachment; filename="{found.name}"',
        "Content-Length": str(found.stat().st_size),
    }
    return StreamingResponse(_pieces(stream), media_type=BYTES, headers=headers)


def _files(name: str, number: int) -> dict[str, FilePath]:
    """The version's files by name; of one that was not trained there are none to give."""
    with transaction() as session:
        version = aliases.get_version(session, name, number)
    if FilePath(version.path).is_absolute():
        detail = f"{version.ref} is a base model as it is; get it where the operator got it"
        raise Refused(404, "no_files", detail)
    folder = version_folder(version)
    if not folder.is_dir():
        raise Refused(404, "no_files", f"the files of {version.ref} are not here")
    files = (one for one in sorted(folder.iterdir()) if one.is_file() and not one.is_symlink())
    return {file.name: file for file in files}


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece
