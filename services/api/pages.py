"""The dashboard at `/` and the API's own pages at `/docs`: files of services/api/web/, as they are.

They are a client of this API as any other: what a page shows and does, its key may ask for. They
load nothing from elsewhere, and no script but ours runs in them.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter(include_in_schema=False)

FILES = "/web"
_FOLDER = Path(__file__).with_name("web")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI puts styles into the page.
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_CHECKED = {"Cache-Control": "no-cache"}  # kept, but asked about each time: an ETag answers


@router.get("/")
def dashboard() -> Response:
    """The dashboard."""
    return _page("index.html", _POLICY)


@router.get("/docs")
def docs() -> Response:
    """Every route, to read and to try."""
    return _page("docs.html", _DOCS_POLICY)


def _page(name: str, policy: str) -> Response:
    headers = {**_CHECKED, "Content-Security-Policy": policy}
    return FileResponse(_FOLDER / name, media_type="text/html", headers=headers)


def files() -> StaticFiles:
    """What the pages load."""
    return _Files(directory=_FOLDER)


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_CHECKED)
        return response
