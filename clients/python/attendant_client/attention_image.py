"""Draws maps of attention weights as a PNG image. Needs Pillow, the extra `plot`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attendant_client.attention_maps import AttentionMap

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL, GAP, FONT_SIZE = 22, 24, 14
"""Sizes in pixels: of a weight, between maps, of letters."""
PAPER, INK = (255, 255, 255), (20, 20, 30)
STRONGEST = (8, 48, 107)
"""The colour of the largest weight. A weight of 0 is white."""


def check_pillow() -> None:
    """Raise ValueError that says how to install Pillow, if it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "PNG images need Pillow: pip install 'attendant-client[plot]', or write FILE.html"
        ) from error


def map_image(maps: Sequence[AttentionMap]) -> "Image":
    """An image of maps below each other."""
    from PIL import Image

    panels = [_panel(each) for each in maps]
    width = max(panel.width for panel in panels) + 2 * GAP
    height = sum(panel.height + GAP for panel in panels) + GAP
    image, top = Image.new("RGB", (width, height), PAPER), GAP
    for panel in panels:
        image.paste(panel, (GAP, top))
        top += panel.height + GAP
    return image


def _panel(drawn: AttentionMap) -> "Image":
    """One map with its title, and with the labels of queries and keys."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    left, header = (_widest(font, labels) + 8 for labels in (drawn.queries, drawn.keys))
    top = header + 2 * FONT_SIZE
    num_queries, num_keys = drawn.weights.shape
    width = max(left + num_keys * CELL, _widest(font, [drawn.title])) + 1
    image = Image.new("RGB", (width, top + num_queries * CELL + 1), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), drawn.title, fill=INK, font=font)
    for row, label in enumerate(drawn.queries):
        middle = top + row * CELL + CELL // 2
        draw.text((left - 6, middle), label, fill=INK, font=font, anchor="rm")
    for column, label in enumerate(drawn.keys):
        image.paste(_upright(label, header, font), (left + column * CELL, top - header))
    image.paste(_cells(drawn.weights), (left, top))
    draw.rectangle((left, top, left + num_keys * CELL, top + num_queries * CELL), outline=INK)
    return image


def _upright(label: str, height: int, font: "FreeTypeFont | ImageFont") -> "Image":
    """A label that is read from bottom to top, as wide as a cell."""
    from PIL import Image, ImageDraw

    lying = Image.new("RGB", (height, CELL), PAPER)
    ImageDraw.Draw(lying).text((4, CELL // 2), label, fill=INK, font=font, anchor="lm")
    return lying.transpose(Image.Transpose.ROTATE_90)


def _cells(weights: NDArray[np.float32]) -> "Image":
    """The weights as squares, by their share of the largest one."""
    from PIL import Image

    shares = weights / max(float(weights.max(initial=0)), 1e-9)
    colours = np.array(PAPER) + shares[..., None] * (np.array(STRONGEST) - np.array(PAPER))
    pixels = np.rint(colours).astype(np.uint8).repeat(CELL, axis=0).repeat(CELL, axis=1)
    return Image.fromarray(pixels)


def _widest(font: "FreeTypeFont | ImageFont", labels: Sequence[str]) -> int:
    return max(int(font.getlength(label)) + 1 for label in labels)
