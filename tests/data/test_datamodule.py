from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from transfergen.data.datamodule import ImageDataModule
from transfergen.data.pictures import from_array
from transfergen.data.shapes import shapes
from transfergen.images import to_float


def labelled(count):
    """A source whose pictures show their label as red and their index as green."""

    def source(path, split):
        pixels = np.zeros((count, 32, 32, 3), np.uint8)
        labels = np.arange(count, dtype=np.int64) % 7
        pixels[..., 0], pixels[..., 1] = labels[:, None, None], np.arange(count)[:, None, None]
        pixels[..., 2] = split == "test"
        return from_array(f"labelled/{split}", pixels, labels, ())

    return source


def module(source=None, **options):
    data = ImageDataModule(source or labelled(50), path="here", **{"batch_size": 8, **options})
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 16}, r"data\.resolution=16: choose 32 to 1024"),
        ({"resolution": 1025}, r"data\.resolution=1025: choose 32 to 1024"),
    ],
)
def test_setting_out_of_range_is_refused_naming_the_override(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(labelled(8), path="here", **options)


def test_images_may_have_1024_pixels():
    data = module(labelled(16), resolution=1024)
    assert to_float(data.train_set.sample_images(1).pixels, data.image_shape.size).shape == (1, 3, 1024, 1024)


def test_source_without_pictures_is_refused():
    with pytest.raises(ValueError, match=r"data\.path=here: no pictures in its train split"):
        module(labelled(0))


def test_classes_that_no_held_out_picture_has_are_refused_with_what_to_change():
    def source(path, split):
        labels = np.array([0, 1, 1] if split == "train" else [0, 0], np.int64)
        return from_array(f"lesions/{split}", np.zeros((len(labels), 32, 32, 3), np.uint8), labels, ("many", "few"))

    with pytest.raises(ValueError, match=r"^data\.classes=\['few'\]: test split without .* 2 pictures; .*holdout"):
        module(source, classes=["few"], batch_size=2)


def test_a_single_image_is_refused_without_a_batch_size_that_would_be_refused_too():
    with pytest.raises(ValueError, match=r"^data\.path, data\.max_images: the training split has 1 image, .* needs 2"):
        module(labelled(1), batch_size=2)


def test_fewer_images_than_a_batch_are_refused_with_the_batch_size_to_set():
    module(labelled(8), batch_size=8)
    with pytest.raises(ValueError, match=r"data\.batch_size=8: the training split has 7 images; set at most"):
        module(labelled(7), batch_size=8)


def test_a_test_split_of_which_no_picture_can_be_read_is_refused():
    def source(path, split):
        pictures = replace(labelled(16)(path, split), pixels=None)
        return pictures if split == "train" else replace(pictures, open=lambda i: 1 / 0)

    with pytest.raises(ValueError, match=r"^data\.path=here: no picture of its test split can be read"):
        module(source, damaged="skip", max_damaged=1.0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_labels_and_indices_of_a_batch_belong_to_its_pixels(num_workers):
    batches = list(module(num_workers=num_workers).train_dataloader())
    assert len(batches) == 50 // 8
    for batch in batches:
        red, green, blue = batch.pixels.amax((2, 3)).T.tolist()
        assert red == batch.labels.tolist()
        assert green == batch.indices.tolist()
        assert not any(blue)  # no test pictures


def test_test_set_is_the_other_split():
    data = module()
    assert (data.test_set.pixels[..., 2] == 1).all()
    assert (data.train_set.pixels[..., 2] == 0).all()


def test_seed_decides_the_order():
    def order(seed):
        return [batch.indices.tolist() for batch in module(seed=seed).train_dataloader()]

    assert order(3) == order(3)
    assert order(3) != order(4)


@pytest.mark.parametrize(("limit", "batches"), [(None, 6), (1.0, 6), (0.5, 3), (4, 4), (100, 6)])
def test_an_epoch_has_as_many_batches_as_lightning_reads_of_it(limit, batches):
    data = module()
    data.trainer = SimpleNamespace(limit_train_batches=limit)
    assert data.batches_per_epoch == batches


def test_batches_go_on_after_the_images_that_the_training_has_seen():
    straight = [batch.indices.tolist() for batch in module(seed=3).train_dataloader()]
    data = module(seed=3)
    data.images_seen = 4 * 8
    assert [batch.indices.tolist() for batch in data.train_dataloader()] == straight[4:]


@pytest.mark.parametrize(("options", "side"), [({"resolution": 32}, 32), ({"resolution": 64}, 40)])
def test_pictures_become_the_resolution_unless_they_are_smaller_squares(options, side):
    def source(path, split):
        return shapes(path, split, size=40, train=8, test=4)

    assert next(iter(module(source, **options).train_dataloader())).pixels.shape == (8, 3, side, side)


def test_store_beyond_the_memory_limit_goes_to_cache_dir(tmp_path):
    def source(path, split):
        return shapes(path, split, size=40, train=8, test=4)

    data = module(source, max_memory_mib=0, cache_dir=str(tmp_path))
    assert len(list(tmp_path.glob("*.npy"))) == 2
    np.testing.assert_array_equal(data.train_set.pixels, module(source).train_set.pixels)


def ten_classes(path, split):
    pixels = np.repeat(np.arange(40, dtype=np.uint8) % 10, 32 * 32 * 3).reshape(40, 32, 32, 3)
    names = tuple(f"class-{i}" for i in range(10))
    return from_array(f"ten/{split}", pixels, np.arange(40, dtype=np.int64) % 10, names)


def test_number_of_classes_is_that_of_the_pictures_and_another_is_refused():
    assert module(ten_classes).class_count == 10
    assert module(ten_classes, num_classes=0).class_count == 10  # that of the pictures
    assert module().class_count == 0
    with pytest.raises(ValueError, match=r"data\.num_classes=5: the pictures have 10; set null, 1 or 0"):
        _ = module(ten_classes, num_classes=5).class_count


def test_pictures_with_and_without_classes_can_be_one_class():
    for source in (ten_classes, labelled(50)):
        data = module(source, num_classes=1, batch_size=4)
        assert data.class_count == len(data.train_set.classes) == 1
        assert not data.train_set.labels.any()
        assert not data.test_set.labels.any()


def test_classes_are_kept_by_name_or_number_and_count_from_0_in_the_order_given():
    data = module(ten_classes, classes=["class-7", 2], batch_size=4)
    assert data.class_count == 2
    for part in (data.train_set, data.test_set):
        assert part.classes == ("class-7", "class-2")
        assert len(part) == 8
        shown = part[np.arange(8)].pixels[:, 0, 0, 0]
        assert {(int(pixel), int(label)) for pixel, label in zip(shown, part.labels, strict=True)} == {(7, 0), (2, 1)}


@pytest.mark.parametrize("classes", [["class-7", "cow"], [10], [3, 3], ["class-3", 3], []])
def test_classes_that_do_not_exist_or_are_given_twice_are_refused_with_a_list_of_all(classes):
    with pytest.raises(ValueError, match=r"data\.classes=.* class-0, class-1,.* 0 to 9"):
        module(ten_classes, classes=classes)


def test_choosing_classes_of_pictures_without_classes_is_refused():
    with pytest.raises(ValueError, match=r"data\.classes=\[1\]: these pictures have no classes"):
        module(classes=[1])


def test_max_images_keeps_as_many_of_each_class_and_the_whole_test_split():
    data, again = (module(ten_classes, max_images=20, batch_size=4) for _ in range(2))
    assert len(data.test_set) == 40
    assert np.bincount(data.train_set.labels).tolist() == [2] * 10
    assert (data.train_set.labels == again.train_set.labels).all()
    assert len(module(ten_classes, max_images=41, batch_size=4).train_set) == 40
