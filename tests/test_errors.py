import pytest

from transfergen.errors import counted, first_line


def test_counts_have_their_noun_in_the_singular_or_plural():
    assert [counted(n, "picture") for n in (0, 1, 2_000)] == ["0 pictures", "1 picture", "2,000 pictures"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no such tensor\nand more", "no such tensor"),
        ("", "RuntimeError"),
        ("no end of the archive. This is an error of the reader. " + "If you see it, " * 20, None),
        ("Failed. " + "one " * 60, "Failed. " + "one " * 47 + "one ..."),
        ("one " * 60, "one " * 49 + "one ..."),
        ("x" * 201, "x" * 200 + " ..."),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_long_message_ends_with_a_whole_sentence_or_word(message, shown):
    assert first_line(RuntimeError(message)) == (shown or "no end of the archive. This is an error of the reader")
