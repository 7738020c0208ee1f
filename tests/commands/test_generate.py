import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from runs import called
from safetensors.torch import load_file

from transfergen import Generator
from transfergen.commands.generate import main
from transfergen.images import to_grid
from transfergen.runs import artefacts
from transfergen.sampling.latents import Latent


def generate(out, **settings):
    code, _, err = called(main, *(f"{key}={value}" for key, value in ({"out": out} | settings).items()))
    assert code == 0, err
    return {file.name: np.asarray(Image.open(file)) for file in sorted((out / "images").glob("*.png"))}


def test_images_are_numbered_and_in_a_grid(run_dir, tmp_path):
    images = generate(tmp_path / "out", run=run_dir, num=5)
    assert list(images) == [f"{i:06d}.png" for i in range(5)]
    assert all(image.shape == (32, 32, 3) for image in images.values())
    assert Image.open(tmp_path / "out" / "grid.png").size == (3 * 34 + 2, 2 * 34 + 2)


def test_same_seed_gives_the_same_images_whatever_the_number_and_the_batch(run_dir, tmp_path):
    a = generate(tmp_path / "a", run=run_dir, num=6, seed=3)
    b = generate(tmp_path / "b", run=run_dir, num=4, seed=3, batch_size=3)
    c = generate(tmp_path / "c", run=run_dir, num=4, seed=4)
    for name in b:
        assert np.abs(a[name].astype(int) - b[name]).max() <= 1  # a batch of another size rounds differently
    assert np.abs(a["000001.png"].astype(int) - c["000000.png"]).max() <= 1
    assert not np.array_equal(a["000000.png"], c["000000.png"])


def test_chosen_seeds_give_their_images_in_the_order_in_which_they_are_named(run_dir, tmp_path):
    chosen = generate(tmp_path / "out", run=run_dir, seeds="[59,12,26]", batch_size=2)
    assert list(chosen) == ["000000.png", "000001.png", "000002.png"]
    for image, expected in zip(chosen.values(), Generator.from_pretrained(run_dir)([59, 12, 26]), strict=True):
        assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 1
    assert json.loads((tmp_path / "out" / "generate.json").read_text())["seeds"] == [59, 12, 26]
    assert "holds images of another seeds" in refusal(tmp_path / "out", run=run_dir, seeds="[59,12]")
    assert "holds images of another seed;" in refusal(tmp_path / "out", run=run_dir, seed=59, num=3)


def test_several_devices_share_the_images_out(run_dir, tmp_path):
    generate(tmp_path / "one", run=run_dir, num=11, batch_size=3)
    generate(tmp_path / "two", run=run_dir, num=11, batch_size=3, devices=2, device="cpu")
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / n / "images").iterdir()} for n in ("one", "two"))
    assert len(one) == 11
    assert one == two
    for i in (3, 4, 5):  # a whole batch: one of another size rounds differently
        (tmp_path / "two" / "images" / f"{i:06d}.png").unlink()
    generate(tmp_path / "two", run=run_dir, num=11, batch_size=3, devices=2)
    assert (tmp_path / "two" / "images" / "000004.png").read_bytes() == one["000004.png"]


def test_truncation_changes_the_images(run_dir, tmp_path):
    plain = generate(tmp_path / "plain", run=run_dir, num=1)
    truncated = generate(tmp_path / "truncated", run=run_dir, num=1, truncation=0.1)
    assert not np.array_equal(plain["000000.png"], truncated["000000.png"])


def refusal(out, **settings):
    code, _, err = called(main, *(f"{key}={value}" for key, value in ({"out": out} | settings).items()))
    assert code == 2
    assert err.count("\n") == 1, err
    return err


def test_the_best_checkpoint_is_that_of_a_run(tmp_path):
    code, _, err = called(main, "run=builtin:cifar10", "checkpoint=best", f"out={tmp_path / 'out'}")
    assert code == 2
    assert "checkpoint=best: run=builtin:cifar10 is no folder of a run" in err


def test_missing_run_and_wrong_settings_are_refused(run_dir, tmp_path):
    assert "run=RUN_DIR" in refusal(tmp_path / "out")
    assert "no such folder" in refusal(tmp_path / "out", run=tmp_path / "nowhere")
    assert "generator.json" in refusal(tmp_path / "out", run=tmp_path)
    assert "num=0: choose a whole number, 1 or more" in refusal(tmp_path / "out", run=run_dir, num=0)
    assert "truncation=0" in refusal(tmp_path / "out", run=run_dir, truncation=0)
    assert "classes=[3]: this generator has no classes" in refusal(tmp_path / "out", run=run_dir, classes="[3]")
    assert "classes={0: 1}: give a list, as in [a,b]" in refusal(tmp_path / "out", run=run_dir, classes="{0: 1}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"directions": 2, "fine": "[2]"}, "directions= and coarse= ask for two kinds of output; leave one out"),
        ({"block": 2}, "coarse=[], fine=[]: give at least one seed of each"),
        ({"out": "many.zip", "directions": 2}, "out=many.zip: an archive is for images; give a folder for directions="),
        ({"devices": 2, "invert": "cat.png"}, "devices=2: is for single images; leave it out"),
        ({"steps": 5}, "steps=5: is for invert=; leave it out"),
        ({"perceptual": 1}, "perceptual=1: is for invert=; leave it out"),
        ({"directions": 2, "num": 5}, "num=5: is for single images; leave it out"),
        ({"coarse": "[1]", "fine": "[2]", "batch_size": 5}, "batch_size=5: is for single images; leave it out"),
        ({"directions": 2, "frames": 5}, "frames=5: is for interpolate=; leave it out"),
        ({"fps": 5}, "fps=5: is for interpolate=; leave it out"),
        ({"seeds": "[1,2]", "num": 5}, "num=5: is for images without seeds=; leave it out"),
        ({"seeds": "[1,2]", "seed": 5}, "seed=5: is for images without seeds=; leave it out"),
        ({"seeds": "[1,2]", "directions": 2}, "seeds=[1,2]: is for single images; leave it out"),
        (
            {"interpolate": "[1,2]", "seed": 5},
            "seed=5: is for single images, invert=, directions=; leave it out",
        ),
        (
            {"invert": "cat.png", "truncation": 0.5},
            "truncation=0.5: is for single images, interpolate=, directions=, coarse=; leave it out",
        ),
        (
            {"invert": "cat.png", "classes": "[0,1]"},
            "classes=[0, 1]: a picture is of one class; leave the others out",
        ),
        (
            {"latent": "latent.safetensors", "directions": 2, "classes": "[0,1]"},
            "classes=[0, 1]: a picture is of one class; leave the others out",
        ),
        (
            {"latent": "latent.safetensors", "directions": 2, "seed": 5},
            "seed=5: is for directions= without latent=; leave it out",
        ),
        (
            {"latent": "latent.safetensors", "directions": 2, "truncation": 0.5},
            "truncation=0.5: is for directions= without latent=; leave it out",
        ),
        (
            {"latent": "latent.safetensors", "interpolate": "[1,2]"},
            "latent=latent.safetensors: is for directions=; leave it out",
        ),
        (
            {"interpolate": "[7,7]", "classes": "[0,1,2]"},
            "classes=[0, 1, 2]: more than the seeds interpolate=[7, 7]; leave some out",
        ),
        ({"out": "many.tar.gz"}, "out=many.tar.gz: an archive is written as .zip only"),
        ({"out": "many.ZIP"}, "out=many.ZIP: an archive is written as .zip only"),
    ],
)
def test_no_setting_is_ignored_for_another_kind_of_output(conditional_run, tmp_path, settings, words):
    assert words in refusal(**{"out": tmp_path / "out", "run": conditional_run} | settings)


def test_damaged_or_foreign_files_are_refused(run_dir, tmp_path):
    for name in ("generator.json", "generator.safetensors"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    about = json.loads((tmp_path / "generator.json").read_text())
    about["generator"]["width"] = 16
    (tmp_path / "generator.json").write_text(json.dumps(about))
    assert "another architecture" in refusal(tmp_path / "out", run=tmp_path)
    about["generator"] = {"_target_": "os.system", "command": "true"}
    (tmp_path / "generator.json").write_text(json.dumps(about))
    assert "refused" in refusal(tmp_path / "out", run=tmp_path)
    (tmp_path / "generator.json").write_text("{")
    assert "damaged" in refusal(tmp_path / "out", run=tmp_path)


def test_existing_images_are_kept_and_other_settings_are_refused(run_dir, tmp_path):
    whole = generate(tmp_path / "out", run=run_dir, num=6)
    images = tmp_path / "out" / "images"
    (images / "000004.png").unlink()
    (images / ".000004.png.part").write_bytes(b"cut off")
    kept = {file.name: file.stat().st_mtime_ns for file in images.glob("*.png")}
    again = generate(tmp_path / "out", run=run_dir, num=6)
    assert again.keys() == whole.keys()
    assert all((images / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert np.abs(again["000004.png"].astype(int) - whole["000004.png"]).max() <= 1
    assert not list(images.glob(".*"))
    _, out, _ = called(main, f"run={run_dir}", "num=4", f"out={tmp_path / 'out'}")
    assert out.startswith(f"4 images: {images}, ")
    assert out.endswith("; of earlier commands it holds 2 more\n")
    assert "holds images of another seed" in refusal(tmp_path / "out", run=run_dir, num=6, seed=1)


def test_damaged_settings_of_a_folder_of_images_get_one_line(run_dir, tmp_path):
    generate(tmp_path / "out", run=run_dir, num=1)
    (tmp_path / "out" / "generate.json").write_text("")
    assert "generate.json is damaged; choose another place" in refusal(tmp_path / "out", run=run_dir, num=1)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_output_that_another_process_writes_is_left_to_it(run_dir, tmp_path, name):
    out = tmp_path / name
    if name == "out":
        out.mkdir()
    with artefacts.claim(out, "out"):
        assert f"process {os.getpid()}" in refusal(out, run=run_dir, num=1)
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("*.zip"))


def test_archive_has_the_same_images_and_leaves_no_partial_file(run_dir, tmp_path):
    folder = generate(tmp_path / "out", run=run_dir, num=5)
    (tmp_path / "grid.png").write_bytes(b"mine")
    code, _, err = called(main, f"run={run_dir}", "num=5", f"out={tmp_path / 'all.zip'}")
    assert code == 0, err
    assert (tmp_path / "grid.png").read_bytes() == b"mine"
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "out" / "grid.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == list(folder)
        for name in folder:
            np.testing.assert_array_equal(np.asarray(Image.open(archive.open(name))), folder[name])
    assert not list(tmp_path.glob(".*.part"))


def test_an_archive_of_other_images_is_kept(run_dir, tmp_path):
    out = tmp_path / "all.zip"
    assert called(main, f"run={run_dir}", "num=2", f"out={out}")[0] == 0
    content = out.read_bytes()
    assert "holds images of another seed" in refusal(out, run=run_dir, num=2, seed=1)
    assert out.read_bytes() == content
    assert called(main, f"run={run_dir}", "num=3", f"out={out}")[0] == 0  # more of the same
    out.write_bytes(b"mine")
    assert "is none of this command's" in refusal(out, run=run_dir)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("settings", [{}, {"interpolate": "[1,2]"}])
@pytest.mark.parametrize("place", ["", "best", "snapshots/000000016", "all.zip"])
def test_no_file_of_a_run_is_overwritten(run_dir, place, settings):
    before = {file.name for file in run_dir.iterdir()}
    assert "is the folder of a run" in refusal(run_dir / place, run=run_dir, num=2, **settings)
    assert {file.name for file in run_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("out", "settings", "words"),
    [
        ("file", {}, "is a file, not a folder"),
        ("file", {"interpolate": "[1,2]"}, "is a file, not a folder"),
        ("folder.zip", {}, "is a folder; give a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, out, settings, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.zip").mkdir()
    line = refusal(tmp_path / out, run="nowhere", **settings)
    assert f"out={tmp_path / out}: " in line
    assert words in line


def test_interpolation_is_written_as_gif_and_film(run_dir, tmp_path):
    pytest.importorskip("av")
    code, out, err = called(main, f"run={run_dir}", "interpolate=[1,2,3]", "frames=4", f"out={tmp_path}")
    assert code == 0, err
    assert out.startswith("9 frames: ")
    with Image.open(tmp_path / "interpolation.gif") as gif:
        assert gif.n_frames == 9 + 7  # forwards and backwards
    assert (tmp_path / "interpolation.mp4").stat().st_size > 1000
    assert "give at least two seeds" in refusal(tmp_path, run=run_dir, interpolate="[1]")


def test_directions_are_strips_with_the_image_of_the_seed_in_the_middle(run_dir, tmp_path):
    code, out, err = called(main, f"run={run_dir}", "directions=2", "seed=7", f"out={tmp_path}")
    assert code == 0, err
    assert out == f"seed 7 from -3 to 3 standard deviations along each direction: {tmp_path / 'directions.png'}\n"
    sheet = np.asarray(Image.open(tmp_path / "directions.png")).astype(int)
    assert sheet.shape == (2 * 34 + 2, 7 * 34 + 2, 3)
    strips = sheet[2:, 2:].reshape(2, 34, 7, 34, 3)[:, :32, :, :32]
    generator = Generator.from_pretrained(run_dir)
    expected = np.asarray(generator([7])[0]).astype(int)
    assert np.abs(strips[:, :, 3] - expected).max() <= 1
    last = generator.vary(7, -3 * generator.directions(2)[1:])[0].permute(1, 2, 0).numpy()
    assert np.abs(strips[1, :, 0] - last).max() <= 1
    assert "directions=101: choose 1 to 100" in refusal(tmp_path, run=run_dir, directions=101)


def test_a_class_may_be_given_by_its_name(conditional_run, tmp_path):
    named = generate(tmp_path / "out", run=conditional_run, classes="['<d>', {c: 0.7, 5: 0.3}]", num=2)
    numbers = Generator.from_pretrained(conditional_run)([0, 1], classes=[3, {2: 7, 5: 3}])
    for image, expected in zip(named.values(), numbers, strict=True):
        assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 1
    assert json.loads((tmp_path / "out" / "generate.json").read_text())["classes"] == [3, {"2": 0.7, "5": 0.3}]
    assert "classes=[x]: this generator has no class x, but a, b, c" in refusal(
        tmp_path / "other", run=conditional_run, classes="[x]"
    )


def test_classes_may_be_mixed_and_a_folder_keeps_to_its_mixture(conditional_run, tmp_path):
    mixed = generate(tmp_path / "out", run=conditional_run, classes="[{3: 0.7, 5: 0.3}, 2]", num=2)
    expected = Generator.from_pretrained(conditional_run)([0, 1], classes=[{3: 7, 5: 3}, 2])
    for image, own in zip(mixed.values(), expected, strict=True):
        assert np.abs(image.astype(int) - np.asarray(own)).max() <= 1
    assert json.loads((tmp_path / "out" / "generate.json").read_text())["classes"] == [{"3": 0.7, "5": 0.3}, 2]
    assert len(generate(tmp_path / "out", run=conditional_run, classes="[{3: 0.7, 5: 0.3}, 2]", num=3)) == 3
    changed = refusal(tmp_path / "out", run=conditional_run, classes="[{3: 0.6, 5: 0.4}, 2]")
    assert "holds images of another classes" in changed


def test_styles_are_a_sheet_with_the_images_of_the_seeds_at_its_sides(conditional_run, run_dir, tmp_path):
    code, out, err = called(main, f"run={conditional_run}", "coarse=[1,2,3]", "fine=[7,8]", f"out={tmp_path}")
    assert code == 0, err
    assert (
        out == f"a row for each coarse seed, a column for each fine one, from block 2 of 3 on: {tmp_path}/styles.png\n"
    )
    sheet = np.asarray(Image.open(tmp_path / "styles.png")).astype(int)
    assert sheet.shape == (4 * 34 + 2, 3 * 34 + 2, 3)
    cells = sheet[2:, 2:].reshape(4, 34, 3, 34, 3)[:, :32, :, :32].swapaxes(1, 2)
    generator = Generator.from_pretrained(conditional_run)
    assert not cells[0, 0].any()
    assert np.abs(cells[0, 1:] - np.stack(generator([7, 8]))).max() <= 1
    assert np.abs(cells[1:, 0] - np.stack(generator([1, 2, 3]))).max() <= 1
    mixed = generator.mix_styles([1, 2, 3], [7, 8], block=2).permute(0, 1, 3, 4, 2).numpy()
    assert np.abs(cells[1:, 1:] - mixed).max() <= 1
    without = refusal(tmp_path, run=run_dir, coarse="[1]", fine="[2]")
    assert "coarse, fine: the latent of this DCGAN enters before" in without


def test_inversion_writes_the_image_nearest_to_a_picture_and_its_latent(run_dir, tmp_path):
    picture, out = tmp_path / "mine.jpg", tmp_path / "out"
    Image.new("RGB", (50, 40), "red").save(picture)
    out.mkdir()
    for name in ("inversion.png", "latent.safetensors"):
        (out / name).symlink_to(picture)  # is replaced, not written through
    code, _, err = called(main, f"run={run_dir}", f"invert={picture}", "steps=20", f"out={out}")
    assert code == 0, err
    assert Image.open(picture).size == (50, 40)
    sheet = np.asarray(Image.open(out / "inversion.png"))
    assert sheet.shape == (36, 70, 3)
    assert np.abs(sheet[2:34, 2:34].astype(int) - (254, 0, 0)).max() <= 2
    z = load_file(out / "latent.safetensors")["z"]
    assert z.shape == (1, 100)
    generator = Generator.from_pretrained(run_dir)
    strip = np.asarray(to_grid(generator.network(z + torch.tensor([[0.0], [2.0]]) * generator.directions(1))))
    assert np.abs(strip[2:34, 2:34].astype(int) - sheet[2:34, 36:68]).max() <= 1
    assert np.abs(strip[2:34, 36:68].astype(int) - sheet[2:34, 36:68]).max() > 1
    options = [f"run={run_dir}", f"invert={picture}", "steps=20", "perceptual=0", f"out={tmp_path / 'pixels'}"]
    assert called(main, *options)[0] == 0
    assert not torch.equal(load_file(tmp_path / "pixels" / "latent.safetensors")["z"], z)
    assert "cannot read it" in refusal(out, run=run_dir, invert=tmp_path / "nowhere.png")


def test_the_latent_of_an_inverted_picture_is_taken_in_place_of_a_seed(conditional_run, run_dir, tmp_path):
    picture, found = tmp_path / "mine.png", tmp_path / "found of mine" / "latent.safetensors"
    Image.new("RGB", (32, 32), "red").save(picture)
    options = [f"run={conditional_run}", f"invert={picture}", "classes=[c]", "steps=2", f"out={found.parent}"]
    assert called(main, *options)[0] == 0
    generator = Generator.from_pretrained(conditional_run)
    latent = generator.read_latent(found)
    assert latent.y.tolist() == [2]
    code, out, err = called(main, f"run={conditional_run}", f"latent={found}", "directions=1", f"out={tmp_path}")
    assert code == 0, err
    assert out == f"{found} from -3 to 3 standard deviations along each direction: {tmp_path / 'directions.png'}\n"
    sheet = np.asarray(Image.open(tmp_path / "directions.png")).astype(int)
    for column, step in ((3, 0), (6, 3)):
        expected = generator.vary(latent, step * generator.directions(1))[0].permute(1, 2, 0).numpy()
        assert np.abs(sheet[2:34, 2 + 34 * column :][:, :32] - expected).max() <= 1
    other = refusal(tmp_path, run=run_dir, latent=found, directions=1)
    assert f"latent={found}: z is (1, {generator.z_dim}) of torch.float32, but this generator takes (1, 100)" in other


def test_an_interpolation_leads_from_a_seed_to_a_latent(run_dir, tmp_path):
    pytest.importorskip("av")
    latent = tmp_path / "latent.safetensors"
    Latent(torch.ones(1, 100)).save(latent)
    code, out, err = called(main, f"run={run_dir}", f"interpolate=[7,{latent}]", "frames=1", f"out={tmp_path}")
    assert code == 0, err
    assert out.startswith("2 frames: ")
    generator = Generator.from_pretrained(run_dir)
    images = [*generator.pixels([7]), *generator.vary(Latent(torch.ones(1, 100)), torch.zeros(100))]
    with Image.open(tmp_path / "interpolation.gif") as gif:
        for place in (0, 1):
            gif.seek(place)
            frame = np.asarray(gif.convert("RGB")).astype(int)
            errors = [np.abs(frame - each.permute(1, 2, 0).numpy()).mean() for each in images]
            assert min(errors) == errors[place]  # a palette changes the colours
    nothing = "is no latent; give a latent.safetensors that generate invert=PICTURE has written"
    assert f"interpolate=mine.jpg: {nothing}" in refusal(tmp_path, run=run_dir, interpolate="[7,mine.jpg]")
    lost = tmp_path / "lost.safetensors"
    assert f"interpolate={lost}: there is no such file" in refusal(tmp_path, run=run_dir, interpolate=f"[{lost},7]")


def test_weights_file_is_a_source_and_a_missing_best_generator_is_refused(run_dir, tmp_path):
    a = generate(tmp_path / "a", run=run_dir, num=2)
    b = generate(tmp_path / "b", run=run_dir / "generator.safetensors", num=2)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert "kept none; train with evaluation.every_images=N" in refusal(tmp_path / "c", run=run_dir, checkpoint="best")


def test_a_snapshot_is_chosen_by_the_images_that_it_had_seen(run_dir, conditional_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_dir, folder)
    assert "train with snapshot_every_images=N" in refusal(tmp_path / "a", run=folder, checkpoint=25_024)
    for images, source in {25_024: conditional_run, 50_016: run_dir}.items():
        snapshot = folder / "snapshots" / f"{images:09d}"
        snapshot.mkdir(parents=True)
        for name in ("generator.json", "generator.safetensors"):
            shutil.copy(source / name, snapshot)
    assert "choose one of 25_024, 50_016" in refusal(tmp_path / "b", run=folder, checkpoint=25_000)
    chosen = generate(tmp_path / "c", run=folder, checkpoint="25_024", num=2)
    wanted = generate(tmp_path / "d", run=conditional_run, num=2)
    assert all(np.array_equal(chosen[name], wanted[name]) for name in wanted)


def test_a_flipped_bit_in_the_weights_is_refused(run_dir, tmp_path):
    (tmp_path / "generator.json").write_bytes((run_dir / "generator.json").read_bytes())
    content = bytearray((run_dir / "generator.safetensors").read_bytes())
    content[-1000] ^= 1
    (tmp_path / "generator.safetensors").write_bytes(content)
    assert "generator.safetensors is damaged: its SHA-256" in refusal(tmp_path / "out", run=tmp_path)
