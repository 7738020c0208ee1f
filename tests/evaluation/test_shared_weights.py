from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.shared_weights import pretrained_weight_ids, shared_weights


def test_pretrained_weights_are_found_anywhere_in_a_config():
    vgg = {"arch": "vgg19", "cut": "relu3_4", "weights": "file.safetensors"}
    lite0 = {"name": "tf_efficientnet_lite0", "weights": "package"}
    assert pretrained_weight_ids({"backbone": vgg, "pool": 4}) == {"vgg19.tv_in1k"}
    assert pretrained_weight_ids({"parts": [{"backbone": vgg}, {"backbones": [lite0]}]}) == {
        "vgg19.tv_in1k",
        "tf_efficientnet_lite0.in1k",
    }
    assert pretrained_weight_ids({"backbone": vgg | {"weights": "random"}}) == set()
    assert pretrained_weight_ids({"backbone": {"name": "nobody_knows", "weights": "file.pth"}}) == set()


def test_weights_that_extractor_and_training_share_are_named():
    extractor = PixelFeatures()
    vgg19, vgg16 = ({"arch": arch, "weights": "imagenet"} for arch in ("vgg19", "vgg16"))
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg19}}) is None
    extractor.weights_id = "vgg19.tv_in1k"
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg19}}) == "vgg19.tv_in1k"
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg16}}) is None
    aligned = {"discriminator": {}, "transfer": {"backbone": vgg19, "mmd": 1.0}}
    assert shared_weights(extractor, aligned) == "vgg19.tv_in1k"
    for weight, shared in ((1.0, "vgg19.tv_in1k"), (0.0, None)):
        autoencoder = {"discriminator": {}, "backbone": vgg19, "objective": {"perceptual": weight}}
        assert shared_weights(extractor, autoencoder) == shared
