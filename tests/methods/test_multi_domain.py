"""QS-Attn between several domains, and its two networks, against figures made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.steps import losses
from tiny import domain_folder, tiny_run, tiny_settings
from unpaired.cli.train import main
from unpaired.config import load_yaml
from unpaired.data import DatasetConfig
from unpaired.engine.callbacks import Callback, Samples
from unpaired.engine.checkpoint import read_checkpoint
from unpaired.engine.step import make_optimizers, training_step
from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.methods import ImageBatch, TranslateRequest, image_seeds
from unpaired.methods.multi_domain_qs_attn import MultiDomainQSAttn, MultiDomainQSAttnConfig
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.networks import ConditionalGenerator, MultiTaskDiscriminator, PatchDiscriminator, ResnetGenerator
from unpaired.networks.conditional import DomainNorm
from unpaired.networks.layers import instance_norm
from unpaired.training import RunConfig, describe, train

NAME = "multi_domain_qs_attn"
SOURCES, TARGETS = torch.tensor([0, 2, 1]), torch.tensor([2, 1, 0])


def make(**changes: Any) -> MultiDomainQSAttn:
    torch.manual_seed(0)
    return MultiDomainQSAttn(MultiDomainQSAttnConfig(**{**tiny_settings(NAME), **changes}))


def batch(images: int = 3, size: int = 32) -> ImageBatch:
    source, target = torch.rand(2, images, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return ImageBatch(source, target, image_seeds(0, range(images)), SOURCES[:images], TARGETS[:images])


def generator(taps: tuple[str, ...] = ("down1", "block1"), blocks: int = 3, domains: int = 3) -> ConditionalGenerator:
    torch.manual_seed(1)
    made = ConditionalGenerator(domains=domains, taps=taps, base_channels=4, blocks=blocks)
    for module in made.modules():  # as if something had been learned: the domains differ
        if isinstance(module, DomainNorm):
            nn.init.normal_(module.scale_DC, 1.0, 0.3)
            nn.init.normal_(module.shift_DC, 0.0, 0.3)
    return made


# --- networks -------------------------------------------------------------------------------------------------------


def test_the_norm_scales_and_shifts_each_image_by_its_own_domain() -> None:
    norm = DomainNorm(2, 3)
    norm.scale_DC.data = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    norm.shift_DC.data = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    x = torch.randn(2, 2, 5, 5)
    found = norm(x, torch.tensor([2, 0]))
    for image, (scales, shifts) in enumerate((((5.0, 6.0), (0.5, 0.6)), ((1.0, 2.0), (0.1, 0.2)))):
        for channel in range(2):
            values = x[image, channel].double()
            normal = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            expected = scales[channel] * normal + shifts[channel]
            torch.testing.assert_close(found[image, channel].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("taps", "blocks"), [(("down1", "block1"), 3), (("down1",), 2), (("block3",), 3)])
def test_before_anything_is_learned_it_is_the_plain_generator(taps: tuple[str, ...], blocks: int) -> None:
    torch.manual_seed(1)
    plain = ResnetGenerator(base_channels=4, blocks=blocks)
    torch.manual_seed(1)
    ours = ConditionalGenerator(domains=3, taps=taps, base_channels=4, blocks=blocks)
    x = torch.rand(3, 3, 32, 24) * 2 - 1
    assert torch.equal(ours(x, torch.tensor([0, 1, 2])), plain(x))


def test_the_domain_changes_the_later_half_only() -> None:
    network = generator()
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    made, features = zip(
        *(network.translate_and_encode(x, ("down1", "block1"), torch.tensor([d])) for d in range(3)), strict=True
    )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (made[one] - made[other]).abs().max() > 0.01
        assert all(torch.equal(a, b) for a, b in zip(features[one], features[other], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(features[0], network.encode(x, ("down1", "block1")), strict=True))
    # One encoding serves every translation.
    (hidden,) = network.encode(x, [network.last_tap])
    for domain in range(3):
        assert torch.equal(network.decode(hidden, torch.tensor([domain])), made[domain])
        assert torch.equal(network(x, torch.tensor([domain])), made[domain])


def test_each_image_of_a_batch_goes_to_its_own_domain() -> None:
    network = generator()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    wanted = torch.tensor([2, 0, 2])
    together = network(x, wanted)
    for image in range(3):
        alone = network(x[image : image + 1], wanted[image : image + 1])
        torch.testing.assert_close(together[image : image + 1], alone, rtol=1e-4, atol=1e-5)


def test_which_blocks_know_the_domain_follows_from_the_last_tap() -> None:
    for taps, blocks, shared in ((("down1", "block2"), 5, 2), (("padded_input", "down2"), 3, 1), (("block3",), 3, 3)):
        network = generator(taps, blocks)
        assert (len(network.resnet.blocks), len(network.blocks)) == (shared, blocks - shared)
        assert network.last_tap == f"block{shared}"
        assert list(network.tap_channels)[-1] == network.last_tap
    with pytest.raises(KeyError):  # what lies behind depends on the domain
        generator().encode(torch.rand(1, 3, 32, 32), ["block2"])
    with pytest.raises(ConfigError, match=r"no 'block5'.*'blocks'"):
        generator(("block5",), 3)


def test_a_map_of_the_code_would_be_lost_in_the_next_instance_norm() -> None:
    """Why the code comes as scale and shift: see the module's docstring."""
    convolution = nn.Conv2d(4 + 3, 8, 3, padding=1, padding_mode="reflect")
    x = torch.randn(1, 4, 16, 16)
    answers = []
    for domain in range(3):
        code = F.one_hot(torch.tensor([domain]), 3).float()[:, :, None, None].expand(1, 3, 16, 16)
        answers.append(instance_norm(convolution(torch.cat([x, code], dim=1))))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers[0], answers[2], rtol=1e-4, atol=1e-5)


def test_the_discriminator_gives_the_scores_of_each_images_own_domain() -> None:
    torch.manual_seed(2)
    plain = PatchDiscriminator(base_channels=4, out_channels=3)
    torch.manual_seed(2)
    ours = MultiTaskDiscriminator(domains=3, base_channels=4)
    x = torch.rand(4, 3, 32, 32)
    wanted = [1, 0, 2, 1]
    every, own = plain(x), ours(x, torch.tensor(wanted))
    assert own.shape == (4, 1, *every.shape[2:])
    for image, domain in enumerate(wanted):
        assert torch.equal(own[image, 0], every[image, domain])


# --- losses ---------------------------------------------------------------------------------------------------------


def test_with_one_answer_for_all_domains_it_is_qs_attn() -> None:
    """Before the codes are learned and with equal outputs of D, the losses are QS-Attn's with the same weights."""
    several = make()
    one = QSAttn(QSAttnConfig(**{key: value for key, value in tiny_settings(NAME).items() if key != "domains"}))
    one.generator.load_state_dict(
        {
            key.removeprefix("resnet."): value
            for key, value in several.generator.state_dict().items()
            if "norm" not in key
        }
    )
    one.projector.load_state_dict(several.projector.state_dict())
    weights = several.discriminator.patches.state_dict()
    for name in ("last.weight", "last.bias"):
        weights[name][:] = weights[name][:1]
    one.discriminator.load_state_dict({k: v[:1] if k.startswith("last") else v for k, v in weights.items()})
    plain = losses(one, batch())
    for term, value in losses(several, batch()).items():
        torch.testing.assert_close(value, plain[term], rtol=1e-5, atol=1e-6)


def test_weights_of_the_terms() -> None:
    scaled = losses(make(contrastive_reduction="sum", adversarial_weight=3.0, identity_weight=2.0), batch())
    plain = losses(make(), batch())
    for term, factor in {"discriminator": 1, "adversarial": 3, "contrastive": 2, "identity": 4}.items():
        torch.testing.assert_close(scaled[term], factor * plain[term])


def test_only_the_wanted_domains_codes_and_scores_get_a_gradient() -> None:
    method = make(blocks=6)
    outputs = method.forward_train(batch(1))  # into domain c
    torch.stack(list(method.generator_loss(outputs).values())).sum().backward()
    for name, parameter in method.generator.named_parameters():
        if name.endswith("_DC"):
            assert parameter.grad is not None
            assert parameter.grad[2].abs().sum() > 0, name
            assert parameter.grad[:2].abs().sum() == 0, name
    method.zero_grad()
    method.discriminator_loss(outputs)["discriminator"].backward()
    gradient = method.discriminator.patches.last.weight.grad
    assert gradient is not None
    assert gradient[2].abs().sum() > 0
    assert gradient[:2].abs().sum() == 0
    assert all(p.grad is None for p in method.generator.parameters())


def test_steps_teach_the_domains_apart() -> None:
    method = make(blocks=6)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(method.translate(x, TranslateRequest(domain=0)), method.translate(x, TranslateRequest(domain=2)))
    optimizers = make_optimizers(method, method.config.optimiser)
    for _ in range(2):
        training_step(method, optimizers, batch())
    assert not torch.equal(
        method.translate(x, TranslateRequest(domain=0)), method.translate(x, TranslateRequest(domain=2))
    )
    assert torch.equal(method.translate(x), method.translate(x, TranslateRequest(domain=1)))


# --- training -------------------------------------------------------------------------------------------------------


def final_state(run: Path) -> dict[str, Any]:
    return read_checkpoint(sorted((run / "checkpoints").glob("*.pt"))[-1])["state"]


def test_two_steps_resume_and_translations_to_each_domain(dataset: Path, tmp_path: Path) -> None:
    settings = {"images": 4, "batch_size": 2, "blocks": 6, "num_workers": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(tiny_run(dataset, NAME, **settings), whole, quiet=True).finished
    assert train(tiny_run(dataset, NAME, **settings, stop_after=2), parts, quiet=True).images_seen == 2
    assert train(tiny_run(dataset, NAME, **settings), parts, quiet=True).finished
    one, two = (final_state(run)["method"] for run in (whole, parts))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)

    translator = Translator.from_pretrained(whole, weights="last")
    assert translator.method.domains == ("a", "b", "c")
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    made = [translator.method.translate(x, TranslateRequest(domain=domain)) for domain in range(3)]
    for one_way, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(made[one_way], made[other])
    assert torch.equal(translator.method.translate(x), made[1])


def test_the_domains_are_filled_in_from_the_folder_and_stored(dataset: Path, tmp_path: Path) -> None:
    run = tiny_run(dataset, NAME, images=2, domains=())
    assert train(run, tmp_path / "run", quiet=True).finished
    stored = RunConfig.load(tmp_path / "run" / "run.yaml")
    assert stored.model.domains == ("a", "b", "c")
    assert load_yaml(tmp_path / "run" / "run.yaml")["dataset"]["folder"] is None
    assert json.loads((tmp_path / "run" / "weights" / "model.json").read_text())["model"]["domains"] == ["a", "b", "c"]
    assert describe(stored)["model"]["domains"] == ["a", "b", "c"]
    session = json.loads((tmp_path / "run" / "sessions.jsonl").read_text().splitlines()[0])
    assert session["images"] == [5, 4, 3]
    assert train(run, tmp_path / "run", quiet=True).images_seen == 2  # the same command goes on
    domain_folder(dataset, ("a", "b", "c", "d"))
    with pytest.raises(ConfigError, match=r"model.domains was \['a', 'b', 'c'\], now \['a', 'b', 'c', 'd'\]"):
        train(run, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"the model's settings name a, b, c, but .*train holds a, b, c, d"):
        train(tiny_run(dataset, NAME), tmp_path / "other", quiet=True)


def test_methods_and_folders_that_do_not_belong_together_are_refused(dataset: Path, tmp_path: Path) -> None:
    several, two = tiny_run(dataset, NAME), tiny_run(dataset, "cut")
    with pytest.raises(ConfigError, match=r"Multi-domain QS-Attn learns several domains .* give --domains DIR"):
        train(RunConfig(NAME, two.dataset, several.data, several.model, several.training), tmp_path / "a", quiet=True)
    with pytest.raises(ConfigError, match=f"domains: CUT translates between two domains; .*: {NAME}"):
        train(RunConfig("cut", several.dataset, two.data, two.model, two.training), tmp_path / "b", quiet=True)
    chosen = DatasetConfig(domains=several.dataset.domains, scored_domains=("a", "x"))
    with pytest.raises(ConfigError, match="scored_domains: there is no domain 'x'"):
        train(RunConfig(NAME, chosen, several.data, several.model, several.training), tmp_path / "c", quiet=True)
    assert not {"a", "b", "c"} & {path.name for path in tmp_path.iterdir()}


def test_a_step_of_several_domains_is_not_recorded(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unpaired.training.make_fabric", lambda config: None)  # else it stops where there is no GPU
    with pytest.raises(ConfigError, match="cuda_graph: a step of this run cannot be recorded"):
        train(tiny_run(dataset, NAME, cuda_graph=True), tmp_path / "d", quiet=True)


def test_the_scored_pair_decides_what_is_scored_and_shown(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[TranslateRequest] = []
    shown: list[Tensor] = []
    original = MultiDomainQSAttn.translate

    def translate(self: MultiDomainQSAttn, x: Tensor, request: TranslateRequest = TranslateRequest()) -> Tensor:  # noqa: B008
        requests.append(request)
        return original(self, x, request)

    class Look(Callback):
        def on_sample(self, seen: int, samples: Samples) -> None:
            shown.append(samples.inputs)

    monkeypatch.setattr(MultiDomainQSAttn, "translate", translate)
    for pair in (None, ("c", "a")):
        run = tiny_run(dataset, NAME, images=2, score_every=2, sample_every=2, score_by="swd_progan_x1e3")
        place = DatasetConfig(domains=run.dataset.domains, scored_domains=pair)
        out = tmp_path / f"run_{pair}"
        requests.clear()
        train(RunConfig(NAME, place, run.data, run.model, run.training), out, callbacks=[Look()], quiet=True)
        source, target = pair or ("a", "b")
        assert {request.domain for request in requests} == {"abc".index(target)}
        scored = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
        assert len(scored) == 2
        assert scored[0]["chosen_on"] == f"test/{source} and test/{target} of {place.domains}"
    assert not torch.equal(*shown)  # test images of a, then of c


def test_the_command_takes_a_folder_of_domains(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = domain_folder(dataset), tmp_path / "run"
    small = ["--base-channels", "4", "--blocks", "5", "--num-queries", "16", "--image-size", "32", "--num-workers", "0"]
    start = ["--out", str(run), "--quiet", "--method", NAME, "--images", "2", "--score-every", "0", *small]
    assert main(["--domains", str(folder), "--scored-domains", "c", "b", *start]) == 0
    stored = RunConfig.load(run / "run.yaml")
    assert stored.dataset == DatasetConfig(domains=folder, scored_domains=("c", "b"))
    assert (stored.model.domains, stored.model.blocks) == (("a", "b", "c"), 5)
    for options in ([], ["--domains", str(folder)], ["--scored-domains", "a", "c"]):
        assert main(["--out", str(run), "--quiet", "--config", str(run / "run.yaml"), *options]) == 0
    assert RunConfig.load(run / "run.yaml").dataset.scored_domains == ("a", "c")
    with pytest.raises(ConfigError, match=r"give --domains DIR"):  # DATA replaces the run's folder
        main([str(dataset), "--out", str(run), "--config", str(run / "run.yaml")])
    with pytest.raises(ConfigError, match="give either DATA"):
        main([str(dataset), "--domains", str(folder), *start])
    with pytest.raises(SystemExit):
        main(["--method", NAME, "--help"])
    words = capsys.readouterr().out
    assert words.count("--domains") == words.count("--scored-domains") == 1  # the model's names are no option
