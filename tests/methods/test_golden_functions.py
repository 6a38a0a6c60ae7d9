"""The authors' own losses, selections and schedules on given numbers (tests/golden/pure_functions.json and others)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.golden import fills, read
from unpaired.losses import discriminator_loss, generator_loss, patch_nce_loss
from unpaired.losses.modulated_nce import modulated_nce_loss, transport_plan
from unpaired.losses.semantic_relation import hard_negative_loss, relation_consistency_loss
from unpaired.methods import METHODS, OptimiserConfig, image_pool
from unpaired.methods.enco import EnCoConfig
from unpaired.ops import query_selected_attention, significance_map

FUNCTIONS = read("pure_functions")
N, D = 32, 24


def features(tag: int) -> tuple[Tensor, Tensor]:
    """Anchors q and keys k of a tag, (N, D) each."""
    keys, own = (fills.hashed(start + 6007 * tag, N * D).reshape(N, D) for start in (3, 17))
    shared = fills.hashed(29 + 6007 * tag, D)
    keys = F.normalize(keys + shared, dim=1)
    return F.normalize(0.6 * keys + 0.4 * F.normalize(own + shared, dim=1), dim=1), keys


def batch(count: int) -> tuple[Tensor, Tensor]:
    anchors, keys = zip(*(features(tag) for tag in range(count)), strict=True)
    return torch.stack(anchors), torch.stack(keys)


def check(found: Tensor, expected: dict[str, Any], relative: float = 1e-12) -> None:
    """Length, sum and single entries of a gradient or a map."""
    length = expected["l2"]
    assert found.norm().item() == pytest.approx(length, rel=relative)
    assert found.sum().item() == pytest.approx(expected["sum"], abs=10 * relative * length * found.numel() ** 0.5)
    for place, value in expected["at"].items():
        assert found.flatten()[int(place)].item() == pytest.approx(value, abs=relative * length)


@pytest.mark.parametrize("case", FUNCTIONS["patch_nce"], ids=lambda case: f"batch-{case['batch']}")
def test_patch_nce(case: dict[str, Any]) -> None:
    anchors, keys = batch(case["batch"])
    anchors.requires_grad_()
    loss = patch_nce_loss(anchors, keys, case["tau"])
    assert loss.tolist() == pytest.approx(case["per_image"], rel=1e-12)
    loss.mean().backward()
    check(anchors.grad, case["gradient_of_the_mean"])  # type: ignore[arg-type]
    whole = patch_nce_loss(anchors.detach(), keys, case["tau"], negatives="batch").mean()
    assert whole.item() == pytest.approx(case["mean_with_negatives_of_the_whole_batch"], rel=1e-12)


def test_dclgans_negatives_are_those_of_the_whole_batch() -> None:
    anchors, keys = batch(2)
    found = patch_nce_loss(anchors, keys, 0.07, negatives="batch").mean().item()
    assert found == pytest.approx(FUNCTIONS["dclgan_patch_nce_batch_2"]["mean"], rel=1e-12)


@pytest.mark.parametrize("case", FUNCTIONS["monce"], ids=lambda case: f"eps-{case['eps']}")
def test_monce(case: dict[str, Any]) -> None:
    anchors, keys = batch(1)
    anchors.requires_grad_()
    settings = {"transport_temperature": case["eps"], "iterations": case["iterations"]}
    loss = modulated_nce_loss(anchors, keys, case["tau"], **settings).mean()
    assert loss.item() == pytest.approx(case["mean"], rel=1e-12)
    loss.backward()
    check(anchors.grad, case["gradient_through_the_plan"])  # type: ignore[arg-type]
    similarity = anchors.detach() @ keys.transpose(1, 2)
    weights = (N - 1) * transport_plan(similarity, case["eps"], case["iterations"])[0]
    expected = case["weights_off_the_diagonal"]
    assert weights[0, :8].tolist() == pytest.approx(expected["row_0"], rel=1e-9, abs=1e-30)
    weights.fill_diagonal_(0.0)
    assert weights.sum(dim=0)[:5].tolist() == pytest.approx(expected["column_sums_first_five"], rel=1e-12)
    assert weights.sum(dim=1)[:5].tolist() == pytest.approx(expected["row_sums_first_five"], rel=1e-12)


@pytest.mark.parametrize("case", FUNCTIONS["hneg_src"], ids=lambda case: f"epoch-{case['epoch']}")
def test_hneg_src(case: dict[str, Any]) -> None:
    raw, keys = batch(1)
    raw = (3 * raw).requires_grad_()
    relation = relation_consistency_loss(F.normalize(raw, dim=2), keys).mean()
    assert relation.item() == pytest.approx(case["SRC"], rel=1e-9)
    check(torch.autograd.grad(relation, raw)[0], case["gradient_of_SRC"], 1e-9)
    temperature = torch.tensor([case["relation_temperature"]], dtype=torch.float64)
    contrast = hard_negative_loss(F.normalize(raw, dim=2), keys, temperature, case["tau"]).mean()
    check(torch.autograd.grad(contrast, raw)[0], case["gradient_of_hDCE"], 1e-9)


@pytest.mark.parametrize("mode", ["lsgan", "hinge"])
def test_adversarial_losses(mode: Any) -> None:
    case = FUNCTIONS["gan_losses"][mode]
    real = (1.4 * fills.hashed(41, 64) + 0.3).reshape(1, 1, 8, 8).requires_grad_()
    fake = (1.4 * fills.hashed(141, 64)).reshape(1, 1, 8, 8).requires_grad_()
    loss = discriminator_loss(real, fake, mode)
    assert loss.item() == pytest.approx(case["D"], rel=1e-12)
    for gradient, name in zip(torch.autograd.grad(loss, (real, fake)), ("real", "fake"), strict=True):
        check(gradient, case[f"gradient_of_D_to_{name}"])
    generated = generator_loss(fake, mode)
    assert generated.item() == pytest.approx(case["G"], rel=1e-12)
    check(torch.autograd.grad(generated, fake)[0], case["gradient_of_G"])


@pytest.mark.parametrize(
    "case",
    FUNCTIONS["query_selected_attention"]["cases"],
    ids=lambda case: f"{case['mode']}-batch-{case['batch']}",
)
def test_published_selection_and_routing(case: dict[str, Any]) -> None:
    shape = (case["batch"], case["channels"], case["side"], case["side"])
    count = torch.Size(shape).numel()
    source, target = (0.9 * fills.hashed(start, count).reshape(shape).requires_grad_() for start in (51, 251))
    source, target = source.detach().requires_grad_(), target.detach().requires_grad_()
    options: dict[str, Any] = {"attention": case["mode"], "window": case["window"], "formulation": "published"}
    selected = query_selected_attention(source, [target], case["queries"], **options)
    assert [sorted(row) for row in selected.indices.tolist()] == [sorted(row) for row in case["selected"]]
    entropies = significance_map(source, **options)
    assert entropies.flatten()[:6].tolist() == pytest.approx(case["entropy"]["first_row"], rel=1e-9)
    (selected.source * selected.targets[0]).sum().backward()
    for name, gradient in (("source", source.grad), ("target", target.grad)):
        check(gradient, case["gradients_of_the_sum_of_products"][name], 1e-9)  # type: ignore[arg-type]


def test_the_pool_is_cyclegans(monkeypatch: pytest.MonkeyPatch) -> None:
    case = read("cyclegan")["image_pool"]
    uniforms, places = iter(case["uniforms_drawn_once_full"]), iter(case["places_drawn_where_uniform_above_half"])
    pool, shown = image_pool.ImagePool(case["size"]), []
    for number in range(7):
        full = number >= case["size"]
        flip = full and next(uniforms) > 0.5
        place = next(places) if flip else 0
        monkeypatch.setattr(image_pool, "coin_flips", lambda seeds, flip=flip: [flip])
        monkeypatch.setattr(image_pool, "derive_seeds", lambda seeds, purpose, place=place: torch.tensor([place]))
        shown.append(pool.exchange(torch.full((1, 1, 1, 1), float(number)), torch.zeros(1, dtype=torch.int64)).item())
    assert shown == case["shown_images_0_to_6_in_order"]
    assert [image.item() for image in pool.get_extra_state()["images"]] == case["kept_at_the_end"]


@pytest.mark.parametrize("name", ["cut", "fastcut"])
def test_the_learning_rate_is_the_published_one_but_for_falling_within_an_epoch(name: str) -> None:
    """The published rate falls in steps, from epoch to epoch, and ours along them, to 0."""
    case, optimiser = read("schedules")[name], METHODS[name].Config().optimiser
    constant, decay = case["n_epochs"], case["n_epochs_decay"]
    assert optimiser.epochs == constant + decay
    assert optimiser.constant_fraction == pytest.approx(constant / (constant + decay))
    for epoch, expected in enumerate(case["learning_rate"][: constant + decay]):
        middle = optimiser.learning_rate * optimiser.factor((epoch + 0.5) / (constant + decay))
        assert middle == pytest.approx(expected, abs=optimiser.learning_rate / decay), epoch


def test_the_identity_term_of_enco_ends_with_the_constant_phase() -> None:
    config = EnCoConfig()
    assert config.optimiser == OptimiserConfig(learning_rate=5e-5, epochs=200)
    for epoch, expected in read("enco")["identity_schedule"]["per_epoch"].items():
        for within in (0.0, 0.999):
            assert config.has_identity((int(epoch) - 1 + within) / 200) == expected["identity"], epoch
    assert EnCoConfig(identity_share=1.0).has_identity(0.999)
    assert not EnCoConfig(identity_share=0.0).has_identity(0.0)
