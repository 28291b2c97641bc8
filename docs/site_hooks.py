"""What the site needs beyond docs/: pages of the repository's own Markdown files, and links that fit there.

On a code host a link leads to any file of the repository; on the site only to its pages. A link to another file becomes
the file's path, so that the same text serves both.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {  # file of the repository -> page of the site
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages of Markdown files outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links relative to the file that the page came from, made relative to the page."""
    here = {page: source for source, page in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def relinked(link: re.Match) -> str:
        picture, text, path, anchor = link.groups()
        target = normpath(PurePosixPath(here).parent / path)
        on_site = PAGES.get(target, target.removeprefix("docs/"))
        if target in PAGES or target.startswith("docs/"):
            up = "../" * page.file.src_uri.count("/")
            return f"{picture}[{text}]({up}{on_site}{anchor or ''})"
        return f"{text} (`{target}`)" if text.strip("`") != target else f"`{target}`"

    return LINK.sub(relinked, markdown)
