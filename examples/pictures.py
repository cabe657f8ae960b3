"""A thousand pictures: each is made and described by Pillow; those that are too small are reported, not fatal."""

from apothic import App, Image, RemoteExecutionError

app = App("pictures")
pillow = Image.debian_slim().uv_pip_install("pillow>=11")


@app.function(image=pillow, memory_mb=256, max_containers=2)
def describe(number: int) -> dict[str, object]:
    """Return the size of a picture as PNG, and its brightest colour."""
    from io import BytesIO

    from PIL import Image as Picture

    side = number % 50 * 4
    if side < 8:
        raise ValueError(f"picture {number} is {side} pixels wide")
    stripes = Picture.linear_gradient("L").resize((side, side))
    picture = Picture.merge("RGB", (stripes, stripes.rotate(90), Picture.new("L", (side, side), number % 256)))
    file = BytesIO()
    picture.save(file, "PNG")
    _, brightest = max(picture.getcolors(side * side) or [], key=lambda entry: sum(entry[1]))
    return {"number": number, "side": side, "png_bytes": file.tell(), "brightest": list(brightest)}


if __name__ == "__main__":
    app.deploy()
    found = describe.map(range(1_000), errors="collect")
    failed = [error for error in found if isinstance(error, RemoteExecutionError)]
    pictures = [entry for entry in found if isinstance(entry, dict)]
    print(f"{len(pictures)} pictures, {sum(entry['png_bytes'] for entry in pictures):,} bytes as PNG")
    print(f"{len(failed)} failed; the first: item {failed[0].item}, {failed[0].message}")
