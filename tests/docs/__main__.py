"""Lists what is run and what is not: `python -m tests.docs`."""

from __future__ import annotations

import sys

from tests.docs.blocks import ROOT, pages, read


def main() -> None:
    run, not_run = 0, []
    for page in pages():
        blocks = [block for block in read(page) if block.is_command]
        mine = [block for block in blocks if block.not_run]
        run += len(blocks) - len(mine)
        not_run += mine
        if blocks:
            told = f"{len(blocks) - len(mine)} blocks run, {len(mine)} not"
            sys.stdout.write(f"{page.relative_to(ROOT)}: {told}\n")
    sys.stdout.write(f"in all {run} run, {len(not_run)} not run:\n")
    for block in not_run:
        sys.stdout.write(f"  {block.where}: {block.not_run}\n")


if __name__ == "__main__":
    main()
