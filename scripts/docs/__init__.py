"""The site: pages that are written from the code at build time, and what Markdown alone lacks."""
