"""A Markdown text as one HTML page that needs no other file."""

import hashlib
import json
import re
from base64 import b64encode
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from PIL import Image

TEMPLATE, SCRIPT = (Path(__file__).with_name(f"page.{kind}") for kind in ("html", "js"))
# A word alone in brackets is a place that the script fills.
PLACE = re.compile(r"<p>\[(\w+)\]</p>")
BOXES = {
    "<table>": '<div class="wide" tabindex="0"><table>',
    "</table>": "</table></div>",
    "<p><figure": '<div class="figures"><figure',
    "</figure></p>": "</figure></div>",
    "≠</td>": '<b class="outside">≠</b></td>',
}


class Renderer(RendererHTML):
    """Markdown's elements in HTML, with images as figures that contain their files."""

    def image(self, tokens, index, options, env) -> str:
        """Write a figure and its caption."""
        path = env["folder"] / tokens[index].attrs["src"]
        with Image.open(path) as image:
            # Charts are on white, images on black.
            kind = "chart" if image.convert("L").getpixel((0, 0)) == 255 else "images"
            kind += " wide" if image.width > max(1000, image.height) else ""
            size = f'width="{image.width}" height="{image.height}"'
        content = b64encode(path.read_bytes()).decode()
        return (
            f'<figure class="{kind}"><img src="data:image/png;base64,{content}" '
            f'data-name="{escape(path.stem)}" {size} alt="{escape(tokens[index].content)}">'
            f"<figcaption>{escape(tokens[index].attrs['title'])}</figcaption></figure>"
        )


def page(text: str, folder: Path, data: Any) -> str:
    """Write the page of a Markdown text, with images of `folder` and `data` for the script."""
    markdown = MarkdownIt("js-default", renderer_cls=Renderer)
    tokens, links = markdown.parse(text), []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrs["id"] = inline.content.lower().replace(" ", "-")
            links.append(f'<a href="#{heading.attrs["id"]}">{escape(inline.content)}</a>')
    body = markdown.renderer.render(tokens, markdown.options, {"folder": folder})
    for old, new in BOXES.items():
        body = body.replace(old, new)
    body = body.replace("<h2", f"<nav>{' '.join(links)}</nav>\n<h2", 1)
    body = PLACE.sub(r'<div class="play" id="\1" hidden></div>', body)
    script = f"\n{SCRIPT.read_text(encoding='utf-8')}"
    # The page's policy lets the browser run only the script with this hash.
    known = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"script": script, "hash": known, "data": json.dumps(data).replace("<", "\\u003c")}
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(tokens[1].content), body=body, **parts)
