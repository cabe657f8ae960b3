"""What an order is, and which of the given ones are none."""

from pydantic import BaseModel, Field, ValidationError


class Order(BaseModel):
    """One line of an order book; amounts in cents."""

    customer: str = Field(min_length=1)
    amount: int = Field(gt=0)


def checked(rows: list[dict[str, object]]) -> tuple[list[Order], list[str]]:
    """Return the valid orders, and for each other row why it is none."""
    orders: list[Order] = []
    refused: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            orders.append(Order.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            refused.append(f"row {number}, {first['loc'][0]}: {first['msg']}")
    return orders, refused
