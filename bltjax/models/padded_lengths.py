"""Few sizes for many: arrays are filled up to these, so that many lengths do not mean many compilations."""


def bucket(n: int, least: int) -> int:
    """The next of a few sizes that is not below n: powers of two and three quarters of them, from `least`
    on."""
    power = max(least, 1 << max(n - 1, 0).bit_length())
    return 3 * power // 4 if power > least and n <= 3 * power // 4 else power
