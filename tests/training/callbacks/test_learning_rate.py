import pytest
import torch

from transfergen.training.callbacks.learning_rate import LinearLRDecay


class Rates(LinearLRDecay):
    """Notes the learning rates of each batch."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.rates = []

    def on_train_batch_start(self, trainer, *rest):
        super().on_train_batch_start(trainer, *rest)
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])


def optimizers():
    return [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr) for lr in (1.0, 0.1)]


def test_all_rates_fall_linearly_between_the_two_numbers_of_images(fit, trainer):
    trainer.optimizers = optimizers()
    decay = Rates(start_images=16, end_images=32, final_factor=0.5)
    fit(decay, images=48)
    factors = [1, 1, 1, 0.75, 0.5, 0.5]
    assert decay.rates == [pytest.approx([factor, 0.1 * factor]) for factor in factors]


def test_a_resumed_training_has_the_rates_of_an_uninterrupted_one(fit, trainer, module):
    trainer.optimizers = optimizers()
    whole = Rates(start_images=0, end_images=40)
    fit(whole, images=40)
    trainer.optimizers = optimizers()  # with the configured rates
    module.images_seen = 16
    rest = Rates(start_images=0, end_images=40)
    fit(rest, images=40)
    assert rest.rates == whole.rates[2:]


@pytest.mark.parametrize(
    ("epochs", "max_images", "factors"),
    [
        (-1, 48, [1, 1, 1, 0.75, 0.5, 0.25]),
        (3, 80, [1, 1, 1, 0.75, 0.5, 0.25]),  # 3 epochs of 2 batches
        (5, 48, [1, 1, 1, 0.75, 0.5, 0.25]),
        (1, None, [1, 1]),  # ends before the decay begins
    ],
)
def test_rates_fall_until_whatever_ends_the_run_first(epochs, max_images, factors, fit, trainer):
    trainer.optimizers = optimizers()
    decay = Rates(start_images=16, max_images=max_images, max_epochs=epochs)
    fit(decay, images=8 * len(factors))
    assert [one for one, _ in decay.rates] == pytest.approx(factors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"end_images": 8}, r"lr_decay\.start_images=8: .*fall from there to 8 images"),
        ({"max_epochs": -1}, r"lr_decay\.end_images=null: .*set max_images"),
    ],
)
def test_decay_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LinearLRDecay(start_images=8, **settings)
