"""What a panel is drawn with: pictures of one height, overlays of maps, the sheet of a pair, a histogram.

Colours are cividis, which readers with any kind of colour vision see alike and which keeps its order in grey print; a
line where a map passes one half tells the region without colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from embedx.files import landing
from embedx.spuriosity.features.maps import enlarge

EDGE = 0.5
"""Where the line of an overlay runs."""
OPACITY = 0.65
"""Of the colours, where a map is largest; they fade to a fifth of it where the map is zero."""
GAP, TEXT = 6, 13
QUALITY = 90
"""Of JPEG files."""
INK, FAINT, PAPER, MARK = "#1a1a1a", "#8aa0b8", "#ffffff", "#d55e00"


def picture(pixels: np.ndarray, longest: int) -> np.ndarray:
    """An image (h, w, 3) uint8 with `longest` pixels along its longer side."""
    h, w = pixels.shape[:2]
    size = (max(1, round(longest * w / max(h, w))), max(1, round(longest * h / max(h, w))))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def overlay(image: np.ndarray, nam: np.ndarray) -> np.ndarray:
    """A map nam (h, w) in 0..1 over an image (H, W, 3) uint8 that it belongs to, whatever their sizes.

    Each pixel is blended with the map's colour, more so where the map is larger; a line, light on dark, runs where the
    map passes `EDGE`.
    """
    flat = enlarge(nam, (image.shape[0], image.shape[1]))
    colour, heat = _colours()[np.round(255 * flat).astype(int)], flat[..., None]
    opacity = OPACITY * (1 + 4 * heat) / 5 * nam.any()  # a map of zeros leaves the image as it is
    out = ((1 - opacity) * image + opacity * colour).round().astype(np.uint8)
    inside = flat >= EDGE
    white = _grown(inside)
    out[_grown(white) & ~white] = 0
    out[white & ~inside] = 255
    return out


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask and the pixels beside it."""
    return np.asarray(binary_dilation(mask), dtype=bool)


@cache
def _colours() -> np.ndarray:
    from matplotlib import colormaps

    return 255 * np.asarray(colormaps["cividis"](np.arange(256)))[:, :3]


def sheet(title: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]]) -> np.ndarray:
    """Rows of pictures beneath each other, each row with its name above and a caption under each picture."""
    font = ImageFont.load_default(TEXT)
    cell = max(p.shape[1] for _, pictures, _ in rows for p in pictures) + GAP
    line = TEXT + GAP
    heights = [2 * line + max(p.shape[0] for p in pictures) for _, pictures, _ in rows]
    widths = [cell * len(pictures) for _, pictures, _ in rows] + [int(font.getlength(text)) + GAP for text in title]
    width = GAP + max(widths)
    out = Image.new("RGB", (width, GAP + line * len(title) + sum(heights)), PAPER)
    pen, y = ImageDraw.Draw(out), GAP
    for text in title:
        pen.text((GAP, y), text, fill=INK, font=font)
        y += line
    for (name, pictures, captions), height in zip(rows, heights, strict=True):
        pen.text((GAP, y), name, fill=INK, font=font)
        for i, (part, caption) in enumerate(zip(pictures, captions, strict=True)):
            x = GAP + i * cell
            out.paste(Image.fromarray(part), (x, y + line))
            pen.text((x, y + line + part.shape[0] + 1), caption, fill=INK, font=font)
        y += height
    return np.asarray(out)


def histogram(edges: Sequence[float], counts: Sequence[int], marks: Sequence[float], title: str) -> str:
    """An SVG document: bars of the counts (b,) between the edges (b + 1,), and a tick beneath for each mark."""
    width, height, low = 320, 120, 18
    span = (edges[-1] - edges[0]) or 1.0
    most = max(counts) or 1

    def x(value: float) -> float:
        return (value - edges[0]) / span * (width - 20) + 10

    bars = "".join(
        f'<rect x="{x(a):.1f}" y="{20 + (height - low - 20) * (1 - n / most):.1f}" '
        f'width="{max(x(b) - x(a) - 1, 0.5):.1f}" height="{(height - low - 20) * n / most:.1f}" fill="{FAINT}"/>'
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    ticks = "".join(
        f'<path d="M{x(m):.1f} {height - low}v6" stroke="{MARK}" stroke-width="1.5"/>' for m in sorted(marks)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="10" fill="{INK}"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/><text x="10" y="13">{escape(title)}</text>{bars}'
        f'<path d="M10 {height - low}H{width - 10}" stroke="{INK}"/>{ticks}'
        f'<text x="10" y="{height - 2}">{edges[0]:.3g}</text>'
        f'<text x="{width - 10}" y="{height - 2}" text-anchor="end">{edges[-1]:.3g}</text></svg>\n'
    )


def land(file: Path, pixels: np.ndarray) -> None:
    """Write a JPEG file whole or not at all."""
    with landing(file, synced=False) as temporary:
        temporary.write_bytes(encoded(pixels))


def encoded(pixels: np.ndarray) -> bytes:
    """As a JPEG file."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()
