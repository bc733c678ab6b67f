"""A module that prints."""

print("said in init")


def handler(event: object, context: object) -> None:
    print("said in the handler")
