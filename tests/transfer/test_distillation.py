import pytest
import torch
from torch.nn import functional as F

from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs.generator_files import save_generator
from transfergen.transfer.distillation import Distillation
from transfergen.transfer.strategy import Pairs

TEACHER = {"resolution": 32, "z_dim": 8, "width": 8}


@pytest.fixture
def teacher(tmp_path):
    network = DCGAN(**TEACHER).eval()
    config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", **TEACHER}
    save_generator(tmp_path, network, config, ema=True, images_seen=1)
    return tmp_path, network


def trunk():
    return VGG(arch="vgg11", cut="relu2_1", taps=["relu1_1"], weights="random")


def attached(folder, student, **settings):
    strategy = Distillation(teacher=str(folder), **settings)
    strategy.attach(student, Discriminator())
    return strategy


def pairs(student, count=4):
    z = torch.randn(count, 8)
    return Pairs(z, None, student(z), torch.zeros(count, 3, 32, 32))


def test_terms_are_the_distances_from_what_the_teacher_makes(teacher):
    folder, network = teacher
    student, backbone = DCGAN(**{**TEACHER, "width": 4}), trunk()
    strategy = attached(folder, student, backbone=backbone, output=2.0, perceptual=3.0, adversarial=0.5)
    batch = pairs(student)
    terms = strategy.generator_terms(student, Discriminator(), batch)
    target = network(batch.z)
    torch.testing.assert_close(terms["output"], 2 * F.l1_loss(batch.fake, target))
    torch.testing.assert_close(terms["perceptual"], 3 * perceptual_distance(backbone(batch.fake), backbone(target)))
    assert strategy.adversarial == 0.5
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in (*strategy.teacher.parameters(), *backbone.parameters()))


def test_a_term_of_weight_0_is_not_computed(teacher):
    folder, _ = teacher
    student = DCGAN(**{**TEACHER, "width": 4})
    alone = attached(folder, student, perceptual=0.0)
    assert list(alone.generator_terms(student, Discriminator(), pairs(student))) == ["output"]
    assert alone.has_terms
    assert not attached(folder, student, perceptual=0.0, output=0.0).has_terms


def test_the_teacher_is_frozen_and_moved_but_neither_saved_nor_trained(teacher):
    folder, network = teacher
    strategy = attached(folder, DCGAN(**TEACHER), backbone=trunk())
    assert not list(strategy.parameters())
    assert not strategy.state_dict()
    strategy.double().train()
    parts = [*strategy.teacher.parameters(), *strategy._trunk.parameters()]
    assert {p.dtype for p in parts} == {torch.double}
    assert not any(p.requires_grad for p in parts)
    assert not strategy.teacher.training
    z = torch.randn(2, 8)
    torch.testing.assert_close(strategy.teacher(z.double()).float(), network(z), atol=1e-5, rtol=1e-5)


def test_a_student_comes_closer_to_its_teacher(teacher):
    folder, _ = teacher
    student = DCGAN(**{**TEACHER, "width": 4})
    strategy = attached(folder, student, perceptual=0.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = strategy.generator_terms(student, Discriminator(), pairs(student, 16))["output"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"resolution": 64}, r"its images are 32x32 px, and this run's are 64x64 px; set data\.resolution=32$"),
        ({"z_dim": 16}, r"its z_dim is 8, and the student's is 16; set generator\.z_dim=8"),
    ],
)
def test_a_teacher_of_other_sizes_than_the_student_is_refused(teacher, student, message):
    with pytest.raises(ValueError, match=message):
        attached(teacher[0], DCGAN(**{**TEACHER, **student}), perceptual=0.0)


BIGGAN = {"resolution": 32, "z_dim": 8, "width": 2}


@pytest.mark.parametrize(
    ("theirs", "student", "message"),
    [
        (
            3,
            DCGAN(**TEACHER),
            r"it knows 3 classes, and the student 0; choose a student that can be told of classes, as generator=biggan "
            r"is, and give pictures of 3 classes, in the teacher's order, and set data\.num_classes=null$",
        ),
        (3, ResNet(**BIGGAN, num_classes=2), r"it knows 3 classes, and the student 2; give pictures of 3 classes, "),
        (1, ResNet(**BIGGAN), r"it knows 1 class, and the student 0; set data\.num_classes=1$"),
        (0, ResNet(**BIGGAN, num_classes=2), r"it knows 0 classes, and the student 2; set data\.num_classes=0$"),
    ],
)
def test_a_teacher_of_other_classes_than_the_student_is_refused_with_what_can_be_done(
    tmp_path, theirs, student, message
):
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **BIGGAN, "num_classes": theirs}
    save_generator(tmp_path, ResNet(**BIGGAN, num_classes=theirs), config, ema=True, images_seen=1)
    with pytest.raises(ValueError, match=rf"^transfer\.teacher=.*: {message}"):
        attached(tmp_path, student, perceptual=0.0)


def test_a_trunk_too_deep_for_the_images_is_refused_before_it_is_run(teacher):
    folder, network = teacher
    backbone = VGG(arch="vgg11", cut="pool2", weights="random", input_size=2)
    with pytest.raises(ValueError, match="less than 1x1 of 2 px; choose for the backbone input_size=4 or more"):
        attached(folder, network, backbone=backbone, perceptual=1.0)


def test_bad_settings_are_refused_by_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"^perceptual=1\.0: .*set backbone=efficientnet_lite0"):
        Distillation(teacher="x", backbone={})
    with pytest.raises(ValueError, match=r"transfer\.teacher=.*no generator\.json"):
        attached(tmp_path, DCGAN(**TEACHER), perceptual=0.0)
