from transfergen.errors import counted


def test_counts_have_their_noun_in_the_singular_or_plural():
    assert [counted(n, "picture") for n in (0, 1, 2_000)] == ["0 pictures", "1 picture", "2,000 pictures"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
