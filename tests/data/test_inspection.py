import numpy as np
from PIL import Image

from transfergen.data.image_folder import image_folder
from transfergen.data.inspection import (
    describe_conversion,
    find_duplicates,
    find_leaks,
    inspect_pictures,
    list_warnings,
    summarize,
)
from transfergen.image_shape import ImageShape

SHAPE = ImageShape(3, 64, 64)


def findings(folder, split="train"):
    pictures = image_folder(str(folder), split)
    return pictures, inspect_pictures(pictures, shape=SHAPE, max_megapixels=1, description="")


def noise(seed, size=(40, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def saved(folder, **pictures):
    for split in ("train", "test"):
        (folder / split).mkdir(exist_ok=True, parents=True)
    noise(99).save(folder / "test" / "other.png")
    for name, picture in pictures.items():
        picture.save(folder / "train" / name.replace("_", "."))
    return folder


def test_modes_and_sizes_are_those_of_the_files_and_each_mode_has_its_conversion(tmp_path):
    folder = saved(
        tmp_path,
        a_png=noise(0),
        b_png=Image.new("L", (20, 30)),
        c_jpg=Image.new("CMYK", (16, 16)),
        d_png=Image.new("RGBA", (16, 16)),
        e_png=Image.fromarray(np.zeros((50, 60), np.uint16)),
    )
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(1).save(folder / "train" / "f.png", exif=turned)
    pictures, found = findings(folder)
    assert [f.mode for f in found] == ["RGB", "L", "CMYK", "RGBA, transparent", "I;16", "RGB, rotated by EXIF"]
    assert [describe_conversion(f.mode, SHAPE) for f in found] == [
        "unchanged",
        "grey to RGB",
        "ink to RGB",
        "laid on white",
        "16-bit grey scaled to 8",
        "unchanged, rotated",
    ]
    about = summarize(pictures, found, SHAPE)
    assert (about["pictures"], about["proportional"]) == (6, 4)
    assert (about["width"], about["height"]["max"]) == ({"min": 16, "median": 30, "max": 60}, 50)


def test_pictures_of_the_same_pixels_are_found_whatever_their_files(tmp_path):
    folder = saved(tmp_path, a_png=noise(0), b_bmp=noise(0), c_png=noise(1), d_png=noise(2))
    noise(2).save(folder / "test" / "leak.webp", lossless=True)
    (pictures, train), (_, test) = findings(folder), findings(folder, "test")
    assert find_duplicates(train) == [[0, 1]]
    assert find_leaks(train, test) == [0]
    lines = list_warnings(
        {"train": summarize(pictures, train, SHAPE), "test": summarize(pictures, test, SHAPE)}, 1, shape=SHAPE
    )
    assert [line.split(",")[0] for line in lines] == [
        "1 test picture among the training pictures",
        "1 exact copy of other training pictures",
        "half of the pictures are smaller than data.resolution=64 and are enlarged; set a smaller one",
    ]


def test_damaged_and_too_large_pictures_are_named_with_the_reason_and_others_are_read(tmp_path):
    folder = saved(tmp_path, a_png=noise(0), b_png=noise(1), c_png=Image.new("1", (2000, 1000)))
    cut = folder / "train" / "a.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    pictures, found = findings(folder)
    about = summarize(pictures, found, SHAPE)
    assert [error.partition(" (")[0].rpartition("/")[2] for error in about["damaged"]] == ["a.png", "c.png"]
    assert "2 megapixels, more than data.max_megapixels=1" in about["damaged"][1]
    assert about["modes"] == {"RGB": 1}
    found = [finding for finding in found if finding.error]
    none = summarize(pictures.subset([0, 2], "damaged"), found, SHAPE)
    assert list_warnings({"train": none, "test": about}, 0, shape=SHAPE) == []  # of the sizes nothing is known


def test_classes_are_counted_and_a_large_imbalance_is_told(tmp_path):
    for name, count in (("cat", 22), ("dog", 2)):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count if split == "train" else 1):
                noise(i, (64, 64)).save(tmp_path / split / name / f"{i}.png")
    pictures, found = findings(tmp_path)
    about = summarize(pictures, found, SHAPE)
    assert about["classes"] == {"cat": 22, "dog": 2}
    assert any(
        "the largest class has 22 pictures and the smallest 2" in line
        for line in list_warnings({"train": about, "test": about}, 0, shape=SHAPE)
    )


def test_few_bits_stored_in_16_are_told_with_what_makes_them_bright(tmp_path):
    def lines(largest):
        scan = np.linspace(0, largest, 64 * 64).astype(np.uint16).reshape(64, 64)
        folder = saved(tmp_path / str(largest), a_png=Image.fromarray(scan), b_tif=Image.fromarray(scan // 2))
        pictures, found = findings(folder)
        about = summarize(pictures, found, SHAPE)
        assert about["largest_of_16_bit"] == largest
        return [line for line in list_warnings({"train": about, "test": about}, 0, shape=SHAPE) if "16-bit" in line]

    assert lines(65535) == []
    assert lines(30000) == []
    assert lines(4095) == [
        "the values of all 16-bit pictures are 4,095 or less, of 65,535, so they become dark; multiply them by 16, and "
        "save them anew"
    ]
    assert summarize(*findings(saved(tmp_path / "rgb", a_png=noise(0))), SHAPE)["largest_of_16_bit"] is None


def test_white_on_transparent_is_no_duplicate_where_alpha_is_kept(tmp_path):
    glyphs = {}
    for i, name in enumerate(("a_png", "b_png")):
        glyphs[name] = Image.new("RGBA", (16, 32), (255, 255, 255, 0))
        glyphs[name].putpixel((i, 0), (255, 255, 255, 255))
    pictures = image_folder(str(saved(tmp_path, **glyphs)), "train")
    found = {
        c: inspect_pictures(pictures, shape=ImageShape(c, 32, 16), max_megapixels=1, description="") for c in (3, 4)
    }
    assert (find_duplicates(found[3]), find_duplicates(found[4])) == ([[0, 1]], [])
    assert summarize(pictures, found[4], ImageShape(4, 32, 16))["proportional"] == 2
    told = [describe_conversion("RGBA, transparent", ImageShape(c, 32, 16)) for c in (1, 4)]
    assert told == ["laid on white", "alpha is kept"]
    assert [describe_conversion("L", ImageShape(c, 32, 16)) for c in (1, 4)] == ["unchanged", "grey to RGB, opaque"]
