"""What MkDocs calls while it builds: generated pages, formulas, links that leave the folder.

The sources in docs/ stay plain Markdown that a git host shows as it is. So a link to a file of the
repository is checked here and becomes its name, and a ```math block becomes MathML: nothing is
fetched when a page is read.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.docs import api, reference

logger = logging.getLogger("mkdocs.plugins.selftaught")

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the API's pages in the navigation, as many as there are tags."""
    tags = [tag["name"] for tag in api.document()["tags"]]
    listed = [{name: f"{api.FOLDER}/{name}.md"} for name in [*tags, "schemas"]]
    for section in config.nav or []:
        for entry in section.get("Reference", []):
            if "HTTP API" in entry:
                entry["HTTP API"] += listed
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from code."""
    written = {
        **api.pages(api.document()),
        "reference/cli.md": reference.commands(),
        "reference/settings.md": reference.settings(),
        "reference/recipes.md": reference.recipe(),
        "reference/client.md": reference.client(),
        "changelog.md": _changes(Path(config.config_file_path).parent),
    }
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    return files


def _changes(root: Path) -> str:
    text = (root / "CHANGELOG.md").read_text().replace("](docs/", "](")
    return text.replace("](examples/README.md)", "](how-to/index.md)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository outside docs/ become their text; a missing one is told."""
    root = Path(config.config_file_path).parent
    here = posixpath.dirname(page.file.src_uri)

    def leave(found: re.Match[str]) -> str:
        image, text, target = found.groups()
        path = target.partition("#")[0]
        if "://" in target or not path or target.startswith(("mailto:", "/")):
            return found[0]
        inside = posixpath.normpath(posixpath.join("docs", here, path))
        if inside.startswith("docs/"):
            return found[0]
        if not (root / inside).exists():
            logger.warning("%s links to %s, which is not there", page.file.src_uri, target)
        return f"{image}{text}" if text.startswith("`") else f"`{inside}`"

    lines, fence = [], ""
    for line in markdown.splitlines():
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence):
            fence = ""
        lines.append(line if fence or mark else LINK.sub(leave, line))
    return "\n".join(lines)


def formula(
    source: str, language: str, css_class: str, options: Any, md: Any, **others: Any
) -> str:
    """A ```math block as MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    lines = " ".join(source.split())
    return f'<div class="formula">{convert(lines, display="block")}</div>'
