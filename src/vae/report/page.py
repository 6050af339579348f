"""A Markdown text as one HTML page that needs no other file: figures, numbers and script inside."""

import hashlib
import json
import re
from base64 import b64encode
from html import escape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from PIL import Image

from vae.cli import UserError

TEMPLATE, SCRIPT = (Path(__file__).with_name(f"page.{kind}") for kind in ("html", "js"))
# Where the text has a word alone in brackets, the script shows something to play with.
PLACE = re.compile(r"<p>\[(\w+)\]</p>")
BOXES = {
    "<table>": '<div class="wide" tabindex="0"><table>',
    "</table>": "</table></div>",
    "<p><figure": '<div class="figures"><figure',
    "</figure></p>": "</figure></div>",
    "≠</td>": '<b class="outside">≠</b></td>',
}


class Renderer(RendererHTML):
    """Markdown's elements, images among them as figures that hold what they show."""

    def image(self, tokens, index, options, env) -> str:
        """Write a figure and its caption. A chart of two panels is cut between them."""
        path, alt = env["folder"] / tokens[index].attrs["src"], escape(tokens[index].content)
        try:
            with Image.open(path) as picture:
                picture.load()
        except OSError as error:
            raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None
        width, height = picture.size
        # Charts are on white, pictures on black.
        chart = picture.convert("L").getpixel((0, 0)) == 255
        kind = "chart" if chart else "picture"
        kind += " wide" if width > max(1000, height) else ""
        whole = b64encode(path.read_bytes()).decode()
        parts, images = panels(picture) if chart and width > 2 * height else [picture], ""
        for part in parts:
            content = whole if part is picture else png(np.asarray(part))
            images += (
                f'<img src="data:image/png;base64,{content}" data-name="{escape(path.stem)}" '
                f'width="{part.width}" height="{height}" alt="{"" if images else alt}">'
            )
        caption = f"<figcaption>{escape(tokens[index].attrs['title'])}</figcaption>"
        return f'<figure class="{kind}"><div class="panels">{images}</div>{caption}</figure>'


def png(picture: np.ndarray) -> str:
    """Write a picture as PNG, in base64. Pillow brings its own zlib, so the bytes are the same
    everywhere; a higher level than its default takes six times as long for a twentieth less."""
    Image.fromarray(picture).save(file := BytesIO(), "PNG")
    return b64encode(file.getvalue()).decode()


def panels(chart: Image.Image) -> list[Image.Image]:
    """Cut a wide chart of two panels between them, where no column near its middle has ink, so that
    they stand one below the other on a phone; another chart stays whole."""
    width, height = chart.size
    empty = np.flatnonzero((np.asarray(chart.convert("L")) == 255).all(axis=0))
    cut = int(empty[np.abs(empty - width // 2).argmin()]) if len(empty) else 0
    if abs(cut - width // 2) > width / 20:
        return [chart]
    return [chart.crop(box) for box in ((0, 0, cut, height), (cut, 0, width, height))]


def page(text: str, folder: Path, data: Any) -> str:
    """Write the page of a Markdown text that links to images in `folder`; the script reads `data`.

    Raises UserError if an image is missing.
    """
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
    # By its hash the browser knows the one script that it may run.
    known = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"script": script, "hash": known, "data": json.dumps(data).replace("<", "\\u003c")}
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(tokens[1].content), body=body, **parts)
