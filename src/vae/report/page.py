"""A Markdown text as one HTML page that needs no other file: figures inside, no script."""

from base64 import b64encode
from html import escape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from string import Template

from vae.cli import UserError

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from PIL import Image

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
        """Write a figure and its caption; of a GIF a still too, for reduced motion and paper."""
        path, alt = env["folder"] / tokens[index].attrs["src"], escape(tokens[index].content)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path} ({error}); run `dvc repro`") from None
        source, before, after = data_url(path.suffix[1:], content), "", ""
        with Image.open(BytesIO(content)) as picture:
            width, height = picture.size
            # Gray pictures are pixels to look at, charts are not; a wide chart scrolls on a phone.
            kind = "wide" if width > max(1000, height) else "chart"
            kind = "pixels" if picture.mode == "L" else kind
            if picture.format == "GIF":
                picture.seek(picture.n_frames - 1)
                picture.convert("L").save(png := BytesIO(), "PNG")
                still = data_url("png", png.getvalue())
                before = f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
                # A browser prints the picture that it shows, and of a GIF the first frame.
                after = f'<img class="paper" src="{still}" alt="{alt}">'
        return (
            f'<figure class="{kind}"><picture>{before}'
            f'<img src="{source}" width="{width}" height="{height}" alt="{alt}"></picture>{after}'
            f"<figcaption>{escape(tokens[index].attrs['title'])}</figcaption></figure>"
        )


def data_url(kind: str, image: bytes) -> str:
    """Give an address that holds an image."""
    return f"data:image/{kind};base64,{b64encode(image).decode()}"


def page(text: str, folder: Path) -> str:
    """Write the page of a Markdown text that links to images in `folder`.

    Raises UserError if one is missing.
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
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(tokens[1].content), body=body)
