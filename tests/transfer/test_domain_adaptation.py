import pytest
import torch
from omegaconf import OmegaConf
from runs import ANY_MODEL, SMALL_MODELS, train
from torch.nn import functional as F

from transfergen.config import CONF_DIR
from transfergen.losses.alignment import _log_similarities, coral, cross_domain_consistency, mmd
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
from transfergen.transfer.domain_adaptation import DomainAdaptation
from transfergen.transfer.ewc import ewc_penalty, fisher_information
from transfergen.transfer.strategy import Pairs

NETWORK = {"resolution": 32, "z_dim": 8, "width": 4}
ALL = {"mmd": 2.0, "coral": 3.0, "reversal": 0.5, "consistency": 4.0, "ewc": 5.0}
NONE = dict.fromkeys(ALL, 0.0)


@pytest.fixture
def source(tmp_path):
    network = DCGAN(**NETWORK).eval()
    config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", **NETWORK}
    save_generator(tmp_path, network, config, ema=True, images_seen=1)
    return tmp_path, network


def trunk():
    return VGG(arch="vgg11", cut="relu2_1", taps=["relu1_1"], weights="random")


def attached(folder, generator, **settings):
    strategy = DomainAdaptation(source=str(folder), **{"backbone": trunk()} | settings)
    strategy.attach(generator, Discriminator())
    return strategy


def pairs(generator, count=6):
    z = torch.randn(count, 8)
    return Pairs(z, None, generator(z), torch.rand(count, 3, 32, 32) * 2 - 1)


def test_the_generator_starts_as_the_source(source):
    folder, network = source
    generator = DCGAN(**NETWORK)
    attached(folder, generator)
    z = torch.randn(2, 8)
    torch.testing.assert_close(generator.eval()(z), network(z))


def test_each_term_is_its_weight_times_its_loss_and_reaches_the_generator_alone(source):
    folder, network = source
    generator = DCGAN(**NETWORK)
    strategy = attached(folder, generator, **ALL)
    strategy.start(generator, Discriminator())
    batch = pairs(generator)
    strategy.domain_head.requires_grad_(False)
    terms = strategy.generator_terms(generator, Discriminator(), batch)
    assert list(terms) == ["mmd", "coral", "reversal", "consistency", "ewc"]
    fake, real = strategy._features(batch.fake), strategy._features(batch.real)
    torch.testing.assert_close(terms["mmd"], 2 * mmd(fake, real))
    torch.testing.assert_close(terms["coral"], 3 * coral(fake, real))
    torch.testing.assert_close(terms["reversal"], 0.5 * F.softplus(strategy.domain_head(fake)).mean())
    source_features = strategy._features(network(batch.z))
    torch.testing.assert_close(terms["consistency"], 4 * cross_domain_consistency(source_features, fake))
    assert terms["ewc"].item() == 0
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in generator.parameters())
    assert all(p.grad is None for p in (*strategy.source.parameters(), *strategy.parameters()))


def test_the_weight_of_consistency_is_the_releases():
    """1,000 times the mean over all entries of 4 images' distributions over 3 others. Ojha 2021, the authors' code."""
    weight = OmegaConf.load(CONF_DIR / "transfer" / "domain_adaptation.yaml").consistency
    source, target = torch.randn(4, 16), torch.randn(4, 16)
    theirs = (
        1000 * F.kl_div(_log_similarities(source), _log_similarities(target), log_target=True, reduction="sum") / 12
    )
    ours = weight * cross_domain_consistency(source, target)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=0)


def test_a_collapse_costs_more_than_an_adversarial_loss_is():
    """At weight 1 a collapse would cost 0.004."""
    strategy = DomainAdaptation(source="x", backbone=trunk())
    source = torch.randn(128, 64)
    collapsed = source[:1] + 0.01 * torch.randn(128, 64)
    assert strategy.consistency * cross_domain_consistency(source, collapsed) > 0.5


@pytest.mark.parametrize("name", ALL)
def test_a_term_of_weight_0_is_not_computed(source, name):
    generator = DCGAN(**NETWORK)
    strategy = attached(source[0], generator, **{**NONE, name: 1.0})
    assert list(strategy.generator_terms(generator, Discriminator(), pairs(generator))) == [name]
    assert strategy.has_terms
    assert not attached(source[0], generator, **NONE).has_terms


def test_domain_classifier_and_generator_train_in_opposite_directions(source):
    generator = DCGAN(**NETWORK)
    strategy = attached(source[0], generator, **{**NONE, "reversal": 1.0})
    batch = pairs(generator)
    images = batch.fake.detach().requires_grad_(True)
    strategy.generator_terms(generator, Discriminator(), batch._replace(fake=images))["reversal"].backward()
    logits = strategy.domain_head(strategy._features(images)).mean()
    stepped = images.detach() - 1e3 * images.grad  # the generator's update makes the fakes look more like the target
    assert strategy.domain_head(strategy._features(stepped)).mean() > logits
    optimizer = torch.optim.SGD(strategy.domain_head.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        (loss,) = strategy.discriminator_terms(Discriminator(), batch._replace(fake=batch.fake.detach())).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_ewc_term_grows_with_the_squared_distance_from_the_source_and_checkpoints_keep_the_fisher_information(source):
    generator = DCGAN(**NETWORK)
    strategy = attached(source[0], generator, **{**NONE, "ewc": 2.0})
    strategy.start(generator, Discriminator())
    state = strategy.state_dict()
    assert len(state) == len(list(generator.parameters()))
    assert all(fisher.sum() > 0 for fisher in state.values())
    values = []
    for _ in range(2):
        with torch.no_grad():
            generator.layers[0].weight += 0.1
        (value,) = strategy.generator_terms(generator, Discriminator(), pairs(generator)).values()
        values.append(value.item())
    assert values[1] == pytest.approx(4 * values[0], rel=1e-4)
    changed = ewc_penalty(*map(list, (generator.parameters(), source[1].parameters(), strategy._fisher())))
    assert values[1] == pytest.approx(2 * changed.item(), rel=1e-4)


def test_a_training_measures_the_sources_weights_before_its_first_batch_and_a_resumed_one_keeps_that(source, tmp_path):
    folder, network = source
    sizes = [f"generator.{name}={value}" for name, value in NETWORK.items() if name != "resolution"]
    settings = [*ANY_MODEL, *SMALL_MODELS["dcgan"], *sizes, "transfer=domain_adaptation", f"transfer.source={folder}"]
    settings += ["transfer.consistency=0", "transfer.ewc=1", "backbone=none"]
    fisher = []
    for more in ([*settings, "max_images=8"], [f"resume={tmp_path / 'run'}", "max_images=16"]):
        code, _, err = train(None if fisher else tmp_path / "run", *more, small=False)
        assert code == 0, err
        state = torch.load(tmp_path / "run" / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
        fisher.append([value for name, value in state.items() if name.startswith("transfer.fisher_")])
    for first, then, expected in zip(*fisher, fisher_information(network), strict=True):
        torch.testing.assert_close(first, expected)
        assert torch.equal(then, first)


def test_the_source_is_frozen_and_moved_but_not_saved(source):
    strategy = attached(source[0], DCGAN(**NETWORK)).double().train()
    assert not strategy.state_dict()
    assert {p.dtype for p in strategy.source.parameters()} == {torch.double}
    assert not strategy.source.training


def test_mmd_alone_moves_the_generators_features_to_the_targets(source):
    generator = DCGAN(**NETWORK)
    strategy = attached(source[0], generator, **{**NONE, "mmd": 1.0})
    optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3)
    real = torch.full((16, 3, 32, 32), -0.5) + 0.1 * torch.randn(16, 1, 1, 1)
    distances = []
    for _ in range(25):
        batch = pairs(generator, 16)._replace(real=real)
        (loss,) = strategy.generator_terms(generator, Discriminator(), batch).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means = [strategy._features(images).mean(dim=0) for images in (batch.fake, real)]
        distances.append((means[0] - means[1]).norm().item())
    assert distances[-1] < 0.7 * distances[0]


def test_a_source_that_is_another_network_is_refused(source):
    with pytest.raises(
        ValueError, match=r"transfer\.source=.*DCGAN of 32 px.*\(8, 16, 4, 4\), expected \(8, 32, 4, 4\)"
    ):
        attached(source[0], DCGAN(**{**NETWORK, "width": 8}))


def test_a_source_of_another_class_is_refused_with_the_settings_that_build_it(tmp_path):
    source = ResNet(**NETWORK, num_classes=3, eps=1e-4)
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **NETWORK, "num_classes": 3, "eps": 1e-4}
    save_generator(tmp_path, source, config, ema=True, images_seen=1)
    listed = (
        "set generator=resnet data.resolution=32 generator.z_dim=8 generator.width=4 generator.num_classes=null "
        r"generator.eps=0.0001, and give pictures of 3 classes$"
    )
    with pytest.raises(ValueError, match=rf"^transfer\.source=.*a ResNet of 32 px .*; {listed}"):
        attached(tmp_path, DCGAN(**NETWORK))


def test_a_trunk_too_deep_for_the_images_is_refused_before_it_is_run(source):
    folder, network = source
    backbone = VGG(arch="vgg11", cut="pool2", weights="random", input_size=2)
    with pytest.raises(ValueError, match="less than 1x1 of 2 px; choose for the backbone input_size=4 or more"):
        attached(folder, network, backbone=backbone, mmd=1.0)


def test_bad_settings_are_refused_by_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"^consistency=333\.0: .*set backbone=efficientnet_lite0"):
        DomainAdaptation(source="x", backbone={})
    with pytest.raises(ValueError, match=r"transfer\.source=.*no generator\.json"):
        attached(tmp_path, DCGAN(**NETWORK))
