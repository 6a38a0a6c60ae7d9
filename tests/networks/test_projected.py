"""The projected discriminator: what is frozen stays so, draws are the seeds' alone, and gradients reach the images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny import tiny_settings
from unpaired.engine.ema import EMA
from unpaired.engine.step import make_optimizers, training_step
from unpaired.errors import BackendError, ConfigError
from unpaired.methods import METHODS, ImageBatch, image_seeds
from unpaired.methods.adversarial import AdversarialConfig, generator_scores
from unpaired.networks import PatchDiscriminator, ProjectedDiscriminator, ProjectedScores
from unpaired.networks.projected import _deviations, _pink_noise


def made(channels: int = 3, **options: Any) -> ProjectedDiscriminator:
    """One that is ready, in evaluation mode, where no pass changes it."""
    torch.manual_seed(0)
    discriminator = ProjectedDiscriminator(channels, head_channels=4, **options)
    discriminator.prepare()
    return discriminator.eval()


def pictures(count: int = 2, size: tuple[int, int] = (32, 40), channels: int = 3) -> Tensor:
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def seeds(count: int = 2) -> Tensor:
    return image_seeds(0, range(count))


def frozen_of(discriminator: ProjectedDiscriminator) -> torch.nn.Module:
    assert discriminator._frozen is not None
    return discriminator._frozen.module


def test_the_frozen_network_is_in_no_checkpoint_no_average_and_no_optimizer() -> None:
    settings = tiny_settings("cut") | {"discriminator": "projected_patch", "head_channels": 4}
    method: Any = METHODS["cut"](METHODS["cut"].Config(**settings))
    before = set(method.state_dict())
    method.prepare()
    frozen = {id(p) for p in frozen_of(method.discriminator).parameters()}
    assert len(frozen) > 50
    assert set(method.state_dict()) == before
    assert not frozen & {id(p) for p in method.parameters()}
    averaged = EMA(method.served_networks(), half_life_images=1).weights()
    assert all(key.startswith("generator.") for key in averaged)
    optimizers = make_optimizers(method, method.config.optimiser)
    held = {id(p) for group in optimizers["discriminator"].param_groups for p in group["params"]}
    named = dict(method.discriminator.named_parameters())
    learned = {key for key in named if key.startswith(("heads.", "patch."))}
    assert held == {id(named[key]) for key in learned}
    assert {key.split(".")[0] for key in named.keys() - learned} == {"across_channels", "across_scales"}

    fixed = {key: value.clone() for key, value in method.discriminator.state_dict().items() if key.startswith("across")}
    fixed["deviations"] = method.discriminator.deviations.clone()
    outside = [p.clone() for p in frozen_of(method.discriminator).parameters()]
    # The last bias of a head is moved by real and translated images alike, so by neither at the start.
    trained = {key: named[key].detach().clone() for key in learned if not key.endswith("bias")}
    for number in range(2):
        images = ImageBatch(pictures(), pictures().flip(0), seeds())
        training_step(method, optimizers, images, number=number)
    for key, value in fixed.items():
        assert torch.equal(method.discriminator.state_dict()[key], value), key
    for one, other in zip(frozen_of(method.discriminator).parameters(), outside, strict=True):
        assert torch.equal(one, other)
        assert one.grad is None
    assert all(not torch.equal(named[key], value) for key, value in trained.items())


def test_maps_are_divided_by_what_they_are_on_noise_like_photographs() -> None:
    one, other = made(), made()
    assert torch.equal(one.deviations, other.deviations)
    noise = _pink_noise()
    assert noise.abs().max() <= 1
    for mix, each, deviation in zip(one.across_channels, frozen_of(one)(noise), one.deviations, strict=True):
        assert mix(each).std().item() == pytest.approx(deviation.item(), rel=1e-5)
    spectrum = torch.fft.fft2(noise.double()).abs().mean(dim=(0, 1))
    frequencies = torch.fft.fftfreq(256, 1 / 256)
    radius = torch.hypot(frequencies[:, None], frequencies[None])
    near, far = (spectrum[(radius - each).abs() < 1].mean().item() for each in (6, 48))
    assert far / near == pytest.approx(6 / 48, rel=0.2)  # amplitude falls as 1 / frequency


def test_scales_are_mixed_from_the_coarsest_down() -> None:
    discriminator = made()
    seen = frozen_of(discriminator)(pictures(1, (128, 128)))
    mixed = [mix(each) for mix, each in zip(discriminator.across_channels, seen, strict=True)]
    maps = [each / deviation for each, deviation in zip(mixed, discriminator.deviations, strict=True)]
    middle = (maps[1] + _enlarged(discriminator.across_scales[1](maps[2]))) / 2**0.5
    finest = (maps[0] + _enlarged(discriminator.across_scales[0](middle))) / 2**0.5
    scores = discriminator(pictures(1, (128, 128)))
    assert scores.patch is None
    for head, mixed, score in zip(discriminator.heads, (finest, middle, maps[2]), scores.projected, strict=True):
        torch.testing.assert_close(head(mixed), score)
    assert scores.finest is scores.projected[0]


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def test_draws_are_the_seeds_alone() -> None:
    discriminator, x, of = made(patch=PatchDiscriminator(base_channels=2, layers=2)), pictures(3), seeds(3)
    together = discriminator(x, of)
    torch.manual_seed(99)
    again = discriminator(x, of)
    for one, other in zip((*together.projected, together.patch), (*again.projected, again.patch), strict=True):
        assert torch.equal(one, other)
    for number in range(3):
        seen = discriminator._augmented(x[number : number + 1], of[number : number + 1])
        assert torch.equal(seen[0], discriminator._augmented(x, of)[number])
        alone = discriminator(x[number : number + 1], of[number : number + 1])
        for one, other in zip(alone.projected, together.projected, strict=True):
            torch.testing.assert_close(one[0], other[number], rtol=1e-4, atol=1e-5)
    others = discriminator(x, of + 1)
    assert not any(torch.allclose(a, b) for a, b in zip(others.projected, together.projected, strict=True))
    assert torch.equal(others.patch, together.patch)  # which sees the images as they are
    plain, still = discriminator(x), made(shift=0.0, noise=0.0)(x, of)
    assert all(torch.equal(a, b) for a, b in zip(plain.projected, still.projected, strict=True))


@pytest.mark.parametrize("size", [(32, 40), (17, 24)])
def test_shifts_are_crops_of_the_reflected_image_all_equally_often(size: tuple[int, int]) -> None:
    discriminator = made(shift=0.125, noise=0.0)
    x, count = pictures(1, size), 400
    rows, columns = (int(side * 0.125) for side in size)
    padded = F.pad(x, (columns, columns, rows, rows), mode="reflect")
    crops = {
        (down, right): padded[0, :, down : down + size[0], right : right + size[1]]
        for down in range(2 * rows + 1) for right in range(2 * columns + 1)
    }  # fmt: skip
    shifted = discriminator._augmented(x.expand(count, -1, -1, -1), seeds(count))
    found = [next(key for key, crop in crops.items() if torch.equal(crop, each)) for each in shifted]
    for axis, largest in ((0, rows), (1, columns)):
        counts = torch.bincount(torch.tensor([each[axis] for each in found]), minlength=2 * largest + 1)
        expected = count / (2 * largest + 1)
        assert len(counts) == 2 * largest + 1
        assert ((counts - expected).abs() < 5 * expected**0.5).all(), counts


def test_noise_has_the_deviation_that_was_asked_for_and_is_each_images_own() -> None:
    discriminator, x = made(shift=0.0, noise=0.3), pictures(2, (64, 64))
    noise = discriminator._augmented(x, seeds()) - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise.mean().item()) < 0.01
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1].item()) < 0.05


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (128, 136)])
def test_the_gradient_at_the_images_is_right(size: tuple[int, int]) -> None:
    discriminator = made(patch=PatchDiscriminator(base_channels=2, layers=1)) if size[0] > 16 else made()

    def total(x: Tensor) -> Tensor:
        scores = discriminator(x, seeds())
        return sum(
            (k + 1) * each.mean() for k, each in enumerate((*scores.projected, scores.patch)) if each is not None
        )

    x = pictures(2, size).requires_grad_()
    (single,) = torch.autograd.grad(total(x), x)
    discriminator.double()
    frozen_of(discriminator).double()
    wide = x.detach().double().requires_grad_()
    (double,) = torch.autograd.grad(total(wide), wide)
    assert (single - double).norm() < 1e-3 * double.norm()
    assert all(each.abs().amax() > 0 for each in double)
    direction = torch.randn(wide.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    step = 1e-8 * direction  # so small that hardly a unit passes a kink of its activation
    with torch.no_grad():
        slope = (total(wide + step) - total(wide - step)).item() / 2e-8
    assert slope == pytest.approx((double * direction).sum().item(), rel=1e-3)


def test_a_gray_image_counts_as_the_colour_image_of_its_values() -> None:
    gray, colour = made(1), made(3)
    colour.load_state_dict(gray.state_dict())
    x = pictures(channels=1)
    for one, other in zip(gray(x).projected, colour(x.expand(-1, 3, -1, -1)).projected, strict=True):
        assert torch.equal(one, other)
    assert gray._augmented(x, seeds()).shape == x.shape


@pytest.mark.parametrize(
    ("size", "finest"),
    [((16, 16), (4, 4)), ((19, 30), (5, 7)), ((64, 96), (16, 24)), ((127, 40), (32, 10)), ((128, 160), (16, 20))],
)
def test_small_images_are_doubled_and_every_size_has_scores(size: tuple[int, int], finest: tuple[int, int]) -> None:
    scores = made()(pictures(1, size), seeds(1))
    assert tuple(scores.projected[0].shape) == (1, 1, *finest)
    assert [each.shape[1] for each in scores.projected] == [1, 1, 1]
    assert all(each.isfinite().all() for each in scores.projected)


@pytest.mark.parametrize("batch_deviation", [False, True])
def test_the_coarsest_head_sees_how_much_images_of_a_group_differ(batch_deviation: bool) -> None:
    discriminator = made(batch_deviation=batch_deviation)
    one, other, third = pictures(3).split(1)

    def coarsest(*images: Tensor, groups: int = 1) -> Tensor:
        return discriminator(torch.cat(images), None, groups).projected[-1][:1]

    alike, unlike = coarsest(one, one), coarsest(one, other)
    assert torch.allclose(alike, unlike) != batch_deviation
    torch.testing.assert_close(coarsest(one, other, third, third, groups=2), unlike)  # the other group does not count
    torch.testing.assert_close(coarsest(one), alike)  # one image alone differs from nothing
    finer = discriminator(torch.cat([one, other])).projected[0][:1]
    torch.testing.assert_close(finer, discriminator(torch.cat([one, one])).projected[0][:1])


def test_real_images_and_translations_are_groups_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen = AdversarialConfig(discriminator="projected", batch_deviation=True, head_channels=4), []
    discriminator = config.new_discriminator(3)
    discriminator.prepare()
    monkeypatch.setattr("unpaired.networks.projected._deviations", lambda maps, groups: seen.append(groups) or maps)
    real, fake = pictures(4).split(2)
    config.discriminator_terms(discriminator, real, fake, seeds())
    generator_scores(discriminator, fake, seeds())
    assert seen == [2, 1]


def test_deviations_are_those_of_the_means_of_each_channel() -> None:
    maps = torch.randn(6, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    found = _deviations(maps, 2)
    for group, means in zip(found.chunk(2), maps.mean(dim=(2, 3)).chunk(2), strict=True):
        expected = means.std(dim=0, correction=0).view(1, 5, 1, 1).expand(3, 5, 3, 4)
        torch.testing.assert_close(group, expected, rtol=1e-5, atol=1e-6)
    assert torch.autograd.gradcheck(lambda x: _deviations(x, 3), (maps,))


def test_the_smallest_image_is_that_of_both_parts() -> None:
    patch = PatchDiscriminator(base_channels=2, layers=3)
    assert patch.smallest_image > 16
    assert ProjectedDiscriminator(patch=patch).smallest_image == patch.smallest_image
    assert ProjectedDiscriminator().smallest_image == 16


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(BackendError, match=r"its frozen network 'lite0' is not loaded; call prepare\(\)"):
        ProjectedDiscriminator()(pictures())
    with pytest.raises(ConfigError, match="images of 1 or 3 channels, not 4"):
        ProjectedDiscriminator(4)
    with pytest.raises(ConfigError, match=r"there is no 'lite' \(did you mean 'lite0'"):
        ProjectedDiscriminator(backbone="lite")


class Recorded:
    """A discriminator with given scores that remembers what it was asked."""

    def __init__(self, *scores: Tensor, patch: Tensor | None = None) -> None:
        self.answer, self.asked = ProjectedScores(scores, patch), []

    def __call__(self, images: Tensor, of: Tensor) -> ProjectedScores:
        self.asked.append((images, of))
        return self.answer


def test_the_losses_are_those_written_down() -> None:
    """(mean relu(1 - r) + mean relu(1 + f)) / 2 per map, mean over maps; the generator's is mean relu(1 - f)."""
    fine, coarse = torch.tensor([[0.5, 2.0], [-1.5, 0.5]]), torch.tensor([[-1.0], [3.0]])  # one real, one translation
    patch = torch.tensor([[0.25], [0.75]])
    config = AdversarialConfig(discriminator="projected_patch", patch_weight=3.0, adversarial_weight=2.0)
    discriminator = Recorded(fine, coarse, patch=patch)
    real, fake = pictures(1), pictures(1).neg().requires_grad_()
    terms = config.discriminator_terms(discriminator, real, fake, seeds(1), "_b")
    # fine: real (0.5 + 0) / 2, fake (0 + 1.5) / 2; coarse: real 2, fake 4
    assert terms["discriminator_b"].item() == pytest.approx(((0.25 + 0.75) / 2 + (2 + 4) / 2) / 2)
    assert terms["patch_discriminator_b"].item() == pytest.approx((0.75**2 + 0.75**2) / 2)
    assert terms.keys() == {"discriminator_b", "patch_discriminator_b"}
    ((images, drawn),) = discriminator.asked  # both in one pass, each with draws of its own
    assert torch.equal(images[:1], real)
    assert torch.equal(images[1:], fake)
    assert not images.requires_grad
    assert len(drawn.unique()) == 2

    scores = generator_scores(discriminator, fake, seeds(1))
    assert discriminator.asked[1][0] is fake
    assert discriminator.asked[1][1].item() not in drawn.tolist()
    hinge = ((0.5 + 0 + 2.5 + 0.5) / 4 + (2 + 0) / 2) / 2
    least_squares = (0.75**2 + 0.25**2) / 2
    assert config.adversarial_term(scores).item() == pytest.approx(2 * (hinge + 3 * least_squares))
    alone = AdversarialConfig(discriminator="projected", adversarial_weight=2.0)
    assert alone.adversarial_term(ProjectedScores((fine, coarse), None)).item() == pytest.approx(2 * hinge)


@pytest.mark.parametrize("mode", ["hinge", "nonsaturating"])
def test_the_mode_is_the_patch_discriminators(mode: Any) -> None:
    from unpaired.losses import discriminator_loss, generator_loss

    patch, finest = torch.tensor([[0.25], [0.75]]), torch.tensor([[0.1], [0.2]])
    config = AdversarialConfig(discriminator="projected_patch", gan_mode=mode)
    terms = config.discriminator_terms(Recorded(finest, patch=patch), pictures(1), pictures(1), seeds(1))
    assert terms["patch_discriminator"].item() == pytest.approx(discriminator_loss(*patch.split(1), mode).item())
    assert terms["discriminator"].item() == pytest.approx(discriminator_loss(*finest.split(1), "hinge").item())
    made_term = config.adversarial_term(ProjectedScores((finest,), patch)).item()
    assert made_term == pytest.approx((generator_loss(finest, "hinge") + generator_loss(patch, mode)).item())
