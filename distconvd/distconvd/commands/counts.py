"""Write a number with its noun in the right form."""


def count(number: int, plural: str) -> str:
    """Return "1 job" or "2 jobs" for the plural "jobs"; a plural without "s" stays as it is."""
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"
