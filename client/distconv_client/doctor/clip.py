"""Make a test clip of one second without ffmpeg.

It is in YUV4MPEG2, which is raw frames and short headers. A bar moves over a gradient, so every
frame differs and a lost one shows.
"""

WIDTH, HEIGHT, FRAMES = 128, 96, 25
_STEP = WIDTH // FRAMES


def make_clip() -> bytes:
    """Return the clip: 25 frames at 25 a second, about half a megabyte."""
    head = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n".encode()
    return head + b"".join(b"FRAME\n" + _frame(number) for number in range(FRAMES))


def _frame(number: int) -> bytes:
    bar = range(number * _STEP, number * _STEP + 8)
    line = bytes(235 if x in bar else 16 + x for x in range(WIDTH))
    colour = bytes(128 + number for _ in range(WIDTH * HEIGHT // 4))
    return line * HEIGHT + colour + bytes(255 - value for value in colour)
