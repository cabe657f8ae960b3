"""The app: what is called from outside."""

from apothic import App
from sales.figures import figures
from sales.orders import checked

app = App("sales")

BOOK: list[dict[str, object]] = [
    {"customer": "Ada", "amount": 1250},
    {"customer": "Grace", "amount": 990},
    {"customer": "", "amount": 100},
    {"customer": "Edsger", "amount": 4000},
]


@app.function(memory_mb=512)
def summary(minimum: int = 0) -> dict[str, object]:
    """Check the book and sum up the orders of at least `minimum` cents."""
    orders, refused = checked(BOOK)
    for reason in refused:
        print("refused:", reason)
    return {**figures([order.amount for order in orders if order.amount >= minimum]), "refused": len(refused)}
