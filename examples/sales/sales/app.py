"""The app: what is called from outside."""

from apothic import App, Image
from sales.figures import figures
from sales.orders import checked

app = App("sales")
image = Image.debian_slim().uv_pip_install("numpy>=2.2,<3", "pydantic>=2.12,<3")

BOOK: list[dict[str, object]] = [
    {"customer": "Ada", "amount": 1250},
    {"customer": "Grace", "amount": 990},
    {"customer": "", "amount": 100},
    {"customer": "Edsger", "amount": 4000},
]


@app.function(image=image, memory_mb=512)
def summary(minimum: int = 0) -> dict[str, object]:
    """Check the book and sum up the orders of at least `minimum` cents."""
    orders, refused = checked(BOOK)
    for reason in refused:
        print("refused:", reason)
    return {**figures([order.amount for order in orders if order.amount >= minimum]), "refused": len(refused)}
