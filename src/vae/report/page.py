"""A Markdown text as one HTML page that needs no other file: figures inside, no script, no request."""

import re
from base64 import b64encode
from html import escape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from vae.cli import UserError

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from PIL import Image, ImageSequence

TEMPLATE = Path(__file__).with_name("page.html")
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
        """A figure with its caption; of a GIF also the last frame, for reduced motion and for paper."""
        path, alt = env["folder"] / tokens[index].attrs["src"], escape(tokens[index].content)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None
        before, after = "<picture>", "</picture>"
        with Image.open(BytesIO(content)) as picture:
            width, height = picture.size
            # Gray pictures are pixels to look at, charts are not; a wide chart scrolls on a phone.
            kind = (
                "pixels"
                if picture.mode == "L"
                else "wide"
                if width > max(1000, height)
                else "chart"
            )
            if picture.format == "GIF":
                for frame in ImageSequence.Iterator(picture):
                    last = frame
                last.convert("L").save(png := BytesIO(), "PNG")
                still = address("png", png.getvalue(), env)
                before += f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
                # A browser prints the picture that it shows, and of a GIF the first frame.
                after += f'<img class="paper" src="{still}" alt="{alt}">'
        return (
            f'<figure class="{kind}">{before}<img src="{address(path.suffix[1:], content, env)}" '
            f'width="{width}" height="{height}" alt="{alt}">{after}'
            f"<figcaption>{escape(tokens[index].attrs['title'])}</figcaption></figure>"
        )


def address(kind: str, content: bytes, env: dict[str, Any]) -> str:
    """A short name for an image, which stands for the address in `env` that holds it."""
    name = f"@{len(env['addresses'])}"
    env["addresses"][name] = f"data:image/{kind};base64,{b64encode(content).decode()}"
    return name


def page(text: str, folder: Path) -> str:
    """The page of a Markdown text that links to images in `folder`. Raises UserError if one is missing."""
    markdown = MarkdownIt("js-default", renderer_cls=Renderer)
    tokens, links = markdown.parse(text), []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrs["id"] = inline.content.lower().replace(" ", "-")
            links.append(f'<a href="#{heading.attrs["id"]}">{escape(inline.content)}</a>')
    env = {"folder": folder, "addresses": {}}
    body = markdown.renderer.render(tokens, markdown.options, env)
    for old, new in BOXES.items():
        body = body.replace(old, new)
    body = body.replace("<h2", f"<nav>{' '.join(links)}</nav>\n<h2", 1)
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(title=escape(tokens[1].content), body=body)
    # Megabytes, so last.
    return re.sub(r'(?<=(?:src|set)=")@\d+(?=")', lambda name: env["addresses"][name[0]], text)
