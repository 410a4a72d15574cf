"""Draws the card that stands where the site is shared: python tools/draw_card.py

docs/_static/social_card.png, from the README's picture; `tools/write_lists.py` calls it when that changed.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

STATIC = Path(__file__).resolve().parent.parent / "docs" / "_static"
PICTURE, CARD = STATIC / "paired_seeds.png", STATIC / "social_card.png"
SIZE = (1200, 630)
INK, BLUE = "#222222", "#1f6fb4"


def draw_card() -> None:
    # matplotlib brings this font wherever it is installed
    from matplotlib import get_data_path

    def font(name: str, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)

    card = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, SIZE[0], 14), fill=BLUE)
    pen.text((60, 46), "Knowledge distillation,", INK, font("DejaVuSans-Bold", 52))
    pen.text((60, 112), "watched as it happens", BLUE, font("DejaVuSans-Bold", 52))
    picture = Image.open(PICTURE).convert("RGB")
    height = SIZE[1] - 200
    picture = picture.resize(
        (round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS
    )
    card.paste(picture, ((SIZE[0] - picture.width) // 2, 190))
    card.quantize(128).save(CARD, optimize=True)


if __name__ == "__main__":
    draw_card()
