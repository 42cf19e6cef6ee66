"""Bring the dashboard's two libraries from the npm registry into services/api/web/vendor/.

Needs node and npm; users need neither, for what this writes is in the repository. Run it to move to
another version: `python -m scripts.vendor_web`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

PREACT, HTM, SWAGGER, ESBUILD = (
    "preact@11.2.0",
    "htm@3.1.1",
    "swagger-ui-dist@5.35.0",
    "esbuild@0.28.2",
)
VENDOR = Path(__file__).parent.parent / "services" / "api" / "web" / "vendor"
ENTRY = """\
export { h, render, Fragment, createContext } from "preact";
export {
  useState, useEffect, useRef, useMemo, useCallback, useContext, useReducer, useId, useLayoutEffect,
} from "preact/hooks";
import { h } from "preact";
import htm from "htm";
export const html = htm.bind(h);
"""


def main() -> None:
    """Install, bundle, copy; licences lie beside what they are of."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "entry.js").write_text(ENTRY)
        npm = ["npm", "install", "--silent", "--no-save"]
        subprocess.run([*npm, PREACT, HTM, SWAGGER, ESBUILD], cwd=folder, check=True)
        bundle = ["npx", "esbuild", "entry.js", "--bundle", "--format=esm", "--minify"]
        banner = f"--banner:js=/* {PREACT} (MIT), {HTM} (Apache-2.0): scripts/vendor_web.py */"
        subprocess.run(
            [*bundle, banner, f"--outfile={VENDOR / 'preact.js'}"], cwd=folder, check=True
        )
        modules = folder / "node_modules"
        for package in ("preact", "htm", "swagger-ui-dist"):
            shutil.copy(modules / package / "LICENSE", VENDOR / f"LICENSE.{package}.txt")
        for file in ("swagger-ui-bundle.js", "swagger-ui.css"):
            shutil.copy(modules / "swagger-ui-dist" / file, VENDOR / file)


if __name__ == "__main__":
    main()
